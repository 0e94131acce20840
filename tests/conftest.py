"""What the tests share: deadlines, the installed handler, and real Serf agents on loopback addresses."""

import collections
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
# Tests that one worker runs one after another, because they share what takes long to start or need most of the machine:
# for each module the name of its group, and among how many such groups its tests are divided. The longest come first.
# Other integration tests are on their own; unit tests are grouped by module.
GROUPS = {
    "containers/test_newer": ("newer", 1),
    "containers/test_partitions": ("partitions", 2),
    "integration/test_faults": ("passes", 2),  # these run while the images are built
    "integration/test_resident_faults": ("resident", 1),
    "containers/test_rolling": ("fleet", 1),
    "containers/test_twenty": ("fleet", 1),
    "containers/test_faults": ("faults", 1),
    "containers/test_images": ("images", 1),
    "containers/test_services": ("services", 1),
}
SINGLE = ("containers/", "integration/")

# The machine is noisy: how long one example takes says nothing.
hypothesis.settings.register_profile("here", deadline=None, max_examples=200)
hypothesis.settings.load_profile("here")


class Serf(NamedTuple):
    """A running Serf agent: its process, where it gossips and where its RPC is."""

    process: subprocess.Popen[bytes]
    gossip: str
    rpc: tuple[str, int]

    def leave(self) -> None:
        """Have it leave the cluster; a signal would kill it in its first moments."""
        subprocess.run(["serf", "leave", "-rpc-addr={}:{}".format(*self.rpc)], stdout=subprocess.DEVNULL, check=True)


WaitUntil = Callable[..., None]
StartSerf = Callable[..., Serf]


def pytest_configure(config: pytest.Config) -> None:
    """Make the directory that the workers share, before they are started."""
    if not _is_worker(config):
        os.environ[workers.RUN_DIR] = tempfile.mkdtemp(prefix="serf-haproxy-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the container engine that a worker has started, and remove the directory."""
    if not _is_worker(config):
        engine.stop_engine()
        shutil.rmtree(workers.run_dir(), ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where workers divide the tests, group those that belong together, and put the longest groups first.

    The order that pytest-randomly has chosen stays within a group and among the tests without one.
    """
    if not _is_worker(config):
        return
    order = list(GROUPS)
    counts: collections.Counter[str] = collections.Counter()
    ranks: dict[pytest.Item, int] = {}
    for item in items:
        module = item.path.relative_to(ROOT / "tests").with_suffix("").as_posix()
        if module in GROUPS:
            group, count = GROUPS[module]
            item.add_marker(pytest.mark.xdist_group(f"{group}-{counts[module] % count}"))
            ranks[item] = order.index(module)
        elif module.startswith(SINGLE):
            ranks[item] = len(order)
        else:
            item.add_marker(pytest.mark.xdist_group(module))
            ranks[item] = len(order) + 1
        counts[module] += 1
    items.sort(key=ranks.__getitem__)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what became of the faults of a worker to the controller."""
    if _is_worker(session.config):
        rows = {name: dataclasses.asdict(row) for name, row in faults.SUMMARY.items()}
        session.config.workeroutput["faults"] = rows


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what became of the faults of a worker; a worker that crashed tells nothing."""
    faults.add_rows(getattr(node, "workeroutput", {}).get("faults", {}))


def _is_worker(config: pytest.Config) -> bool:
    """Return whether this process is a worker that a controller has started."""
    return hasattr(config, "workerinput")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what became of all faults that were done."""
    if lines := faults.summarize():
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def time_limit() -> Iterator[None]:
    """Fail a test that hangs instead of hanging with it."""

    def fail(_number: int, _frame: FrameType | None) -> NoReturn:
        raise AssertionError(f"hangs: no end within {HANG_S:g} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Return a function that returns once a condition holds, and fails after a deadline."""

    def wait(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
        end_s = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end_s, f"no {what} within {deadline_s:g} s"
            time.sleep(0.01)

    return wait


@pytest.fixture
def nodes_dir(tmp_path: Path) -> Path:
    """Return an empty node directory."""
    path = tmp_path / "nodes"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def handler() -> Path:
    """Return the executable that Serf runs."""
    path = ROOT / "handlers" / "member_event"
    assert os.access(path, os.X_OK), f"{path} is missing: make it with 'make install'"
    return path


@pytest.fixture(scope="session")
def start_serf(tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil) -> Iterator[StartSerf]:
    """Yield a function that starts a Serf agent and returns once its RPC answers; all are killed in the end."""
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
            wait_until(lambda: process.poll() is not None or accepts(host, rpc), f"RPC of the agent {name}")
            assert process.poll() is None, log_path.read_text()
            return Serf(process, f"{host}:{gossip}", (host, rpc))

        yield start


def choose_port(host: str) -> int:
    """Return a port that is free on this address, for TCP and for UDP."""
    while True:
        with socket.create_server((host, 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as probe:
            port = int(listener.getsockname()[1])
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return port


def accepts(host: str, port: int) -> bool:
    """Tell whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), DEADLINE_S):
        return True
    return False
