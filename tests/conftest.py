"""Shared fixtures: deadlines, the installed handler, and real Serf agents on loopback addresses."""

import contextlib
import dataclasses
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import hypothesis
import pytest

import workers
from containers import engine
from integration import faults

ROOT = Path(__file__).parent.parent
DEADLINE_S = 60.0
HANG_S = 60.0
# Tests that one worker runs one after another, because they share an expensive fixture or need most of the machine. For
# each module: the name of its group, and the number of groups that share its tests. The groups start in this order, the
# longest first. Every other integration test may run in any worker; unit tests are grouped by module.
GROUPS = {
    "containers/test_newer": ("newer", 1),
    "integration/test_faults": ("passes", 2),  # these three run while the first builds the images
    "integration/test_daemon_faults": ("daemon", 1),
    "containers/test_partitions": ("partitions", 2),
    "integration/test_alerts": ("alerts", 1),
    "containers/test_rolling": ("fleet", 1),
    "containers/test_twenty": ("fleet", 1),
    "containers/test_faults": ("faults", 1),
    "containers/test_images": ("images", 1),
    "containers/test_save": ("images", 1),
    "containers/test_services": ("services", 1),
    "integration/test_page": ("page", 1),
    "integration/test_packages": ("packages", 1),
    "integration/test_systemd": ("systemd", 1),
}
SINGLE = ("containers/", "integration/")
AGAIN_COUNT = 12  # so many failed tests run again, one in five hundred

# No deadline per example: on a busy machine the time of one example means nothing.
hypothesis.settings.register_profile("here", deadline=None, max_examples=200)
hypothesis.settings.load_profile("here")


class Serf(NamedTuple):
    """A running Serf agent: its process, gossip address and RPC address."""

    process: subprocess.Popen[bytes]
    gossip: str
    rpc: tuple[str, int]

    def leave(self) -> None:
        """Leave the cluster. A signal shortly after the start would kill the Serf agent instead."""
        subprocess.run(["serf", "leave", "-rpc-addr={}:{}".format(*self.rpc)], stdout=subprocess.DEVNULL, check=True)


WaitUntil = Callable[..., None]
StartSerf = Callable[..., Serf]


def pytest_configure(config: pytest.Config) -> None:
    """Create the directory that the workers share, before they start, and let programs hear Ctrl-C.

    A shell starts background jobs with SIGINT ignored, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _is_worker(config):
        os.environ[workers.RUN_DIR] = tempfile.mkdtemp(prefix="serf-haproxy-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the container engine if a worker started one, and remove the directory."""
    if not _is_worker(config):
        engine.stop_engine()
        shutil.rmtree(workers.run_dir(), ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the second run of `make test`."""
    text = f"run only the tests that failed in the runs before, if they are at most {AGAIN_COUNT}, and name them"
    parser.addoption("--again", action="store_true", help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Let `--again` choose the tests that failed."""
    if config.option.again:
        config.option.lf, config.option.last_failed_no_failures = True, "none"


def pytest_collection_finish(session: pytest.Session) -> None:
    """End the second run where too many tests failed to blame the machine."""
    if session.config.option.again and len(session.items) > AGAIN_COUNT:
        pytest.exit(f"{len(session.items)} tests failed; only up to {AGAIN_COUNT} run again", returncode=1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, sort the longest groups to the front; within a group the random order stays."""
    if _is_worker(config):
        items.sort(key=lambda item: find_group(item.nodeid)[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that gives all tests of a group to one worker, in the order of the collection.

    `--dist=loadgroup` would need marks, and pytest-xdist 3.8 does not see them with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return find_group(nodeid)[1]

    return GroupScheduling(config, log)


def find_group(test_id: str) -> tuple[int, str]:
    """Return the rank of a test, lower for an earlier start, and the name of its group."""
    module = test_id.partition("::")[0].removeprefix("tests/").removesuffix(".py")
    if module in GROUPS:
        group, count = GROUPS[module]
        return list(GROUPS).index(module), f"{group}-{zlib.adler32(test_id.encode()) % count}"
    if module.startswith(SINGLE):
        return len(GROUPS), test_id
    return len(GROUPS) + 1, module


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the summary of a worker's faults to the controller."""
    if _is_worker(session.config):
        rows = {name: dataclasses.asdict(row) for name, row in faults.SUMMARY.items()}
        session.config.workeroutput["faults"] = rows


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add a worker's faults to the summary; a worker that crashed sent none."""
    faults.add_rows(getattr(node, "workeroutput", {}).get("faults", {}))


def _is_worker(config: pytest.Config) -> bool:
    """Return whether this process is a worker that a controller has started."""
    return hasattr(config, "workerinput")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tests that needed a second run, and the summary of all injected faults."""
    if config.option.again and (passed := terminalreporter.getreports("passed")):
        terminalreporter.section("failed beside others, passed alone: look into them", yellow=True)
        for report in passed:
            terminalreporter.write_line(report.nodeid)
    if lines := faults.summarize():
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def time_limit() -> Iterator[None]:
    """Fail a test that runs longer than HANG_S."""

    def fail(_number: int, _frame: FrameType | None) -> NoReturn:
        raise AssertionError(f"the test did not end within {HANG_S:g} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Return a function that waits until a condition holds, and fails after a deadline."""

    def wait(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
        end_s = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end_s, f"no {what} within {deadline_s:g} s"
            time.sleep(0.01)

    return wait


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Yield a directory whose path is short enough for Unix sockets (107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def nodes_dir(tmp_path: Path) -> Path:
    """Return an empty node directory."""
    path = tmp_path / "nodes"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def handler() -> Path:
    """Return the path of the installed event handler."""
    path = ROOT / "handlers" / "member_event"
    assert os.access(path, os.X_OK), f"{path} is missing: run 'make install'"
    return path


@pytest.fixture(scope="session")
def start_serf(tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil) -> Iterator[StartSerf]:
    """Yield a function that starts a Serf agent and waits for its RPC; all are killed at the end."""
    numbers = itertools.count(1)
    with contextlib.ExitStack() as stack:

        def start(name: str, *options: str | bytes, **environ: str) -> Serf:
            host = f"127.83.{workers.NUMBER}.{next(numbers)}"
            gossip, rpc = choose_port(host), choose_port(host)
            log_path = tmp_path_factory.mktemp("serf") / "log"
            log = stack.enter_context(log_path.open("wb"))
            argv = ["serf", "agent", f"-node={name}", f"-bind={host}:{gossip}", f"-rpc-addr={host}:{rpc}"]
            argv += ["-profile=local", *options]
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | environ)
            stack.callback(process.wait)
            stack.callback(process.kill)
            wait_until(lambda: process.poll() is not None or accepts(host, rpc), f"RPC of the Serf agent {name}")
            assert process.poll() is None, log_path.read_text()
            return Serf(process, f"{host}:{gossip}", (host, rpc))

        yield start


def choose_port(host: str) -> int:
    """Return a port that is free on this address for TCP and UDP."""
    while True:
        with socket.create_server((host, 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as probe:
            port = int(listener.getsockname()[1])
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return port


def accepts(host: str, port: int) -> bool:
    """Return whether a process accepts connections at this address."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), DEADLINE_S):
        return True
    return False
