"""The event handler, run with Serf's environment and standard input, and by a real Serf agent."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.wakes import hearing
from serf_haproxy.serf.events import LINE_BYTES, format_line
from serf_haproxy.serf.rpc import Connection, RpcAddress
from serf_haproxy.settings import Settings

pytestmark = pytest.mark.usefixtures("time_limit")

HANDLERS_DIR = Path(__file__).parents[2] / "handlers"
PAYLOADS_DIR = Path(__file__).parents[1] / "payloads"
WEB1 = b"web1\t127.0.1.1\tweb\tport=8080,role=web\n"
WEB2 = b"web2\t127.0.1.2\tweb\trole=web\n"
EVENTS = "member-join,member-leave,member-failed,member-update,member-reap"
HEAVY = {"dataclasses", "enum", "json", "logging", "pathlib", "re", "subprocess", "typing", "jinja2", "msgpack"}

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def run(handler: Path, nodes_dir: Path) -> Run:
    """Return a function that runs the handler for an event; the FIFO `wake` is beside the node directory."""

    def run_handler(
        kind: str | None, payload: bytes, shell: str = '"$0"', **environ: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the handler through a shell, as Serf does; `shell` is the command line, in which $0 is the handler."""
        environ = {
            "SERF_HAPROXY_NODES_DIR": str(nodes_dir),
            "SERF_HAPROXY_WAKE_FIFO": str(nodes_dir.parent / "wake"),
            "SERF_SELF_NAME": "lb",
            **environ,
        }
        if kind is not None:
            environ["SERF_EVENT"] = kind
        argv = ["/bin/sh", "-c", shell, handler]
        return subprocess.run(argv, input=payload, env=environ, capture_output=True, check=False)

    return run_handler


@pytest.fixture
def wakes(nodes_dir: Path) -> Iterator[Callable[[], bytes]]:
    """Yield a function that returns the bytes written to the wake FIFO since its last call."""
    with hearing(nodes_dir.parent / "wake") as read:
        yield read


def read_nodes(nodes_dir: Path) -> dict[str, str]:
    """Return the content of every file in the node directory, by name."""
    return {path.name: path.read_text() for path in nodes_dir.iterdir()}


def assert_quiet(completed: subprocess.CompletedProcess[bytes]) -> None:
    """Assert that the handler succeeded without output."""
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, b"", b"")


def assert_complained(completed: subprocess.CompletedProcess[bytes], code: int, words: str) -> None:
    """Assert that the handler failed with this exit code and printed these words in its own error lines."""
    assert completed.returncode == code
    assert completed.stdout == b""
    lines = completed.stderr.decode("ascii").splitlines()
    assert all(line.startswith("member_event: ") and line.isprintable() for line in lines)
    assert words in completed.stderr.decode("ascii")


def test_executable_is_the_source() -> None:
    """The executable contains the current source; if not, run `make install`."""
    source = (HANDLERS_DIR / "member_event.py").read_bytes()
    assert (HANDLERS_DIR / "member_event").read_bytes().endswith(b"\n" + source)


def test_defaults_are_those_of_the_settings() -> None:
    """The handler, which reads no settings, has the same default paths as the settings."""
    source = (HANDLERS_DIR / "member_event.py").read_text()
    for name, default in (("NODES_DIR", Settings().nodes_dir), ("WAKE_FIFO", Settings().wake_fifo)):
        assert f'os.environ.get("SERF_HAPROXY_{name}") or "{default}"' in source


@pytest.mark.parametrize(
    ("kind", "status"),
    [("member-join", "alive"), ("member-update", "alive"), ("member-leave", "left"), ("member-failed", "failed")],
)
def test_event_is_recorded(run: Run, nodes_dir: Path, kind: str, status: str) -> None:
    """Each event with a status writes one line with that status, without output."""
    assert_quiet(run(kind, WEB1))
    assert read_nodes(nodes_dir) == {"web1": f"{status}\tweb1\t127.0.1.1\tweb\tport=8080,role=web\n"}


def test_reap_removes_the_node_file(run: Run, nodes_dir: Path) -> None:
    """A reap event removes the node's file; it is no error when there is none."""
    run("member-join", WEB1)
    assert_quiet(run("member-reap", WEB1 + WEB2))
    assert read_nodes(nodes_dir) == {}


def test_several_members_are_recorded(run: Run, nodes_dir: Path) -> None:
    """Every member of a coalesced event gets a node file."""
    assert_quiet(run("member-join", WEB1 + WEB2))
    assert sorted(read_nodes(nodes_dir)) == ["web1", "web2"]


def test_later_event_replaces_the_earlier(run: Run, nodes_dir: Path) -> None:
    """After a join and a failure, the directory has one file with the status failed."""
    run("member-join", WEB1)
    assert_quiet(run("member-failed", WEB1))
    assert read_nodes(nodes_dir) == {"web1": "failed\tweb1\t127.0.1.1\tweb\tport=8080,role=web\n"}


@pytest.mark.parametrize("path", sorted(PAYLOADS_DIR.glob("name-*-0101.*.stdin")), ids=lambda path: path.name[:20])
def test_hostile_member_among_good_ones(run: Run, nodes_dir: Path, path: Path) -> None:
    """A member with a hostile name does not keep the others from being recorded, and no other file is written."""
    before = {file.name for file in nodes_dir.parent.iterdir()}
    completed = run("member-join", WEB1 + path.read_bytes() + WEB2)
    is_good = path.name.startswith(("name-empty", "name-long128"))
    if is_good:
        assert_quiet(completed)
    else:
        assert_complained(completed, 100, "member refused")
    assert {"web1", "web2"} <= set(read_nodes(nodes_dir))
    assert len(read_nodes(nodes_dir)) == 2 + is_good
    assert {file.name for file in nodes_dir.parent.iterdir()} == before


def test_unwritable_standard_error(run: Run, nodes_dir: Path) -> None:
    """When standard error is closed or cannot be written, valid members are still recorded."""
    for number, redirection in enumerate(["2>&-", "2>/dev/full"]):
        payload = b"../x\t127.0.1.9\t\t\nweb%d\t127.0.1.1\t\t\n" % number
        assert run("member-join", payload, shell=f'"$0" {redirection}').returncode == 100
        assert f"web{number}" in read_nodes(nodes_dir)


@pytest.mark.parametrize("kind", [None, "", "user", "query", "member-flap"])
def test_other_event_is_refused(run: Run, nodes_dir: Path, kind: str | None) -> None:
    """Without SERF_EVENT, or with any other than the five events, the handler exits with 100 and writes nothing."""
    assert_complained(run(kind, WEB1), 100, "is not a membership event")
    assert read_nodes(nodes_dir) == {}


@pytest.mark.parametrize("shell", ['"$0"', '"$0" <&-', '"$0" </dev/null'])
def test_input_without_members_is_refused(run: Run, nodes_dir: Path, shell: str) -> None:
    """An empty or closed standard input is invalid input."""
    assert_complained(run("member-join", b"", shell=shell), 100, "no member on standard input")
    assert read_nodes(nodes_dir) == {}


def test_binary_input_is_refused(run: Run, nodes_dir: Path) -> None:
    """Binary input is refused with a printable message."""
    assert_complained(run("member-join", bytes(range(256)) * 4), 100, "line refused")
    assert read_nodes(nodes_dir) == {}


def test_input_of_10_mib_is_refused(run: Run, nodes_dir: Path) -> None:
    """A payload larger than Serf can send is refused as a whole, even if it begins with a valid member."""
    completed = run("member-join", WEB1 + b"x" * 10 * 1024 * 1024)
    assert_complained(completed, 100, "Serf never sends that much")
    assert read_nodes(nodes_dir) == {}


def test_member_too_large_for_a_node_file(run: Run, nodes_dir: Path) -> None:
    """A member too large for a node file is refused, and the other one is recorded."""
    payload = b"huge\t127.0.1.9\t\tk=" + b"v" * LINE_BYTES + b"\n" + WEB1
    assert_complained(run("member-join", payload), 100, "give that node fewer tags")
    assert list(read_nodes(nodes_dir)) == ["web1"]


@pytest.mark.parametrize(("kind", "action"), [("member-join", "write"), ("member-reap", "remove")])
def test_missing_directory_is_a_system_failure(run: Run, nodes_dir: Path, kind: str, action: str) -> None:
    """Without the node directory, the exit code is 111 and the message has path and remedy."""
    nodes_dir.rmdir()
    completed = run(kind, WEB1 + WEB2)
    words = f"cannot {action} {nodes_dir}/web1: No such file or directory; make the directory"
    assert_complained(completed, 111, words)
    assert f"{nodes_dir}/web2" in completed.stderr.decode()


def test_one_unwritable_node_file(run: Run, nodes_dir: Path) -> None:
    """A node file that cannot be written does not keep the others from being written."""
    (nodes_dir / "web1").mkdir()
    assert_complained(run("member-join", WEB1 + WEB2), 111, f"cannot write {nodes_dir}/web1")
    assert (nodes_dir / "web2").exists()


def test_only_changes_wake_the_daemon(run: Run, wakes: Callable[[], bytes]) -> None:
    """An event that changes a node file wakes the daemon once; an event without a change does not wake it."""
    told = [
        (run(kind, payload).returncode, wakes())
        for kind, payload in [
            ("member-join", WEB1 + WEB2),
            ("member-join", WEB1 + WEB2),
            ("member-update", WEB1),
            ("member-leave", WEB1),
            ("member-reap", WEB1),
            ("member-reap", WEB1),
            ("member-failed", WEB2 + b"../x\t127.0.1.9\t\t\n"),
        ]
    ]
    assert told == [(0, b"\n"), (0, b""), (0, b""), (0, b"\n"), (0, b"\n"), (0, b""), (100, b"\n")]


@pytest.mark.parametrize("is_made", [False, True])
def test_daemon_may_be_down(run: Run, nodes_dir: Path, is_made: bool) -> None:
    """Without a daemon, with or without its FIFO, the event is recorded without an error."""
    if is_made:
        os.mkfifo(nodes_dir.parent / "wake")
    assert_quiet(run("member-join", WEB1))
    assert list(read_nodes(nodes_dir)) == ["web1"]


def test_regular_file_in_place_of_the_fifo(run: Run, nodes_dir: Path) -> None:
    """A regular file in place of the FIFO is a system failure and keeps its content; the event is recorded."""
    wake = nodes_dir.parent / "wake"
    wake.write_text("precious")
    assert_complained(run("member-join", WEB1), 111, f"{wake} is not a FIFO")
    assert wake.read_text() == "precious"
    assert list(read_nodes(nodes_dir)) == ["web1"]


def test_environment_cannot_inject_modules(run: Run, tmp_path: Path, nodes_dir: Path) -> None:
    """The handler imports no module from PYTHONPATH or the current directory."""
    (tmp_path / "errno.py").write_text("raise SystemExit(1)")
    (tmp_path / "serf_haproxy.py").write_text("raise SystemExit(1)")
    assert_quiet(run("member-join", WEB1, shell=f'cd {tmp_path} && "$0"', PYTHONPATH=str(tmp_path)))
    assert list(read_nodes(nodes_dir)) == ["web1"]


def list_imports(argv: list[str], **environ: str) -> set[str]:
    """Return the modules that an isolated interpreter imports, including those of its start."""
    argv = [sys.executable, "-I", "-X", "importtime", *argv]
    completed = subprocess.run(argv, env=environ, input=WEB1, capture_output=True, check=True)
    return set(re.findall(r"^import time: .*\| +(\S+)$", completed.stderr.decode(), re.MULTILINE))


def test_handler_imports_only_the_cheap_set(handler: Path, nodes_dir: Path) -> None:
    """Beyond the interpreter's own, a run imports the cheap modules of serf_haproxy and three built-in modules."""
    imported = list_imports([str(handler)], SERF_EVENT="member-join", SERF_HAPROXY_NODES_DIR=str(nodes_dir))
    ours = {
        "serf_haproxy",
        "serf_haproxy.errors",
        *(f"serf_haproxy.serf{name}" for name in ("", ".events", ".handling", ".nodes", ".printing", ".wake")),
    }
    assert ours <= imported - list_imports(["-c", ""]) <= ours | {"errno", "stat", "time"}
    assert not imported & HEAVY


@pytest.mark.parametrize("depth", [0, 1], ids=["blank", "blank and long"])
def test_interpreter_path_of_any_kind(tmp_path: Path, nodes_dir: Path, depth: int) -> None:
    """The installed handler runs even when the interpreter's path has a blank or is very long."""
    directory = tmp_path.joinpath("with blank", *["d" * 200] * depth * 2)
    directory.mkdir(parents=True)
    (directory / "venv").symlink_to(sys.prefix)
    target = tmp_path / "a handler"
    subprocess.run([HANDLERS_DIR / "install", directory / "venv" / "bin" / "python", target], check=True)
    environ = {"SERF_EVENT": "member-join", "SERF_HAPROXY_NODES_DIR": str(nodes_dir)}
    assert_quiet(subprocess.run([target], env=environ, input=WEB1, capture_output=True, check=False))
    assert list(read_nodes(nodes_dir)) == ["web1"]
    assert os.listdir(tmp_path / "with blank") == (["venv"] if depth == 0 else ["d" * 200])


def test_relative_interpreter_path_is_refused(tmp_path: Path) -> None:
    """The installer refuses a relative interpreter path, which would depend on the current directory."""
    completed = subprocess.run(
        [HANDLERS_DIR / "install", "python3", tmp_path / "handler"], capture_output=True, check=False
    )
    assert completed.returncode == 100
    assert os.listdir(tmp_path) == []


def test_real_serf_agent_runs_the_handler(
    start_serf: Callable, handler: Path, nodes_dir: Path, wait_until: Callable
) -> None:
    """The node files of a real join and leave are byte-identical to those made from the roster."""
    environ = {"SERF_HAPROXY_NODES_DIR": str(nodes_dir), "SERF_HAPROXY_WAKE_FIFO": str(nodes_dir.parent / "wake")}
    balancer = start_serf("lb", f"-event-handler={EVENTS}={handler}", **environ)
    web1 = start_serf("web1", f"-join={balancer.gossip}", "-tag=role=web", "-tag=port=8080", "-tag=note=a%b")
    path = nodes_dir / "web1"
    wait_until(path.exists, "node file of a join")
    connection = Connection(RpcAddress(*balancer.rpc))
    status, member = connection.read_roster().members["web1"]
    connection.close()
    assert path.read_text() == format_line("alive", member) == format_line(status, member)
    assert member.tags == ("note=a%25b", "port=8080", "role=web")
    web1.leave()
    wait_until(lambda: path.read_text() == format_line("left", member), "node file of a leave")
