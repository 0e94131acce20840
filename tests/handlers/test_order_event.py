"""The handler of orders and queries, run with Serf's environment and standard input, and by real Serf agents."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.wakes import hearing
from serf_haproxy.errors import SerfFault
from serf_haproxy.policy.order_wire import EVENT_BYTES
from serf_haproxy.serf import answers, inbox
from serf_haproxy.serf.query import Query
from serf_haproxy.serf.rpc import Connection, RpcAddress
from serf_haproxy.settings import Settings

pytestmark = pytest.mark.usefixtures("time_limit")

HANDLERS_DIR = Path(__file__).parents[2] / "handlers"
HANDLER = HANDLERS_DIR / "order_event"
HEAVY = {
    "dataclasses",
    "enum",
    "json",
    "logging",
    "pathlib",
    "re",
    "subprocess",
    "typing",
    "hashlib",
    "hmac",
    "msgpack",
}
FILTERS = "user:lb-order,query:lb-status,query:lb-ready,query:lb-explain,query:lb-orders"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the directory beside the wake FIFO, with an inbox and the daemon's answers."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "status").write_text("lb1 UNCHANGED: fine\n")
    (tmp_path / "answers" / "orders.1").write_text("a page")
    return tmp_path


@pytest.fixture
def woken(home: Path) -> Iterator[Callable[[], bytes]]:
    """Yield a function that returns what was written to the wake FIFO since its last call."""
    with hearing(home / "wake") as read:
        yield read


def run(home: Path, payload: bytes, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run the handler as Serf does."""
    environ = {"SERF_HAPROXY_WAKE_FIFO": str(home / "wake"), **environ}
    argv = ["/bin/sh", "-c", str(HANDLER)]
    return subprocess.run(argv, input=payload, env=environ, capture_output=True, check=False)


def send(home: Path, payload: bytes, name: str = "lb-order") -> subprocess.CompletedProcess[bytes]:
    return run(home, payload, SERF_EVENT="user", SERF_USER_EVENT=name)


def test_executable_is_the_source() -> None:
    """The executable contains the current source; if not, run `make install`."""
    assert HANDLER.read_bytes().endswith(b"\n" + (HANDLERS_DIR / "order_event.py").read_bytes())


def test_paths_are_those_of_the_settings() -> None:
    """The handler, which reads no settings, has the same paths as the settings."""
    source = (HANDLERS_DIR / "order_event.py").read_text()
    assert f'os.environ.get("SERF_HAPROXY_WAKE_FIFO") or "{Settings().wake_fifo}"' in source
    for path in (Settings().inbox_dir, Settings().answers_dir):
        assert os.path.dirname(path) == os.path.dirname(Settings().wake_fifo)
        assert f'os.path.join(home, "{os.path.basename(path)}"' in source


def test_an_order_goes_into_the_inbox_and_wakes(home: Path, woken: Callable[[], bytes]) -> None:
    """A user event is written as it came, without Serf's line feed, and the daemon hears that it is an order."""
    completed = send(home, b"v1.abc [1]\n")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, b"", b"")
    assert woken() == b"o"
    assert inbox.take(str(home / "inbox")) == [b"v1.abc [1]"]


def test_what_is_none_of_ours_is_refused(home: Path, woken: Callable[[], bytes]) -> None:
    """Other events, other names and too long payloads write nothing and wake nothing."""
    assert send(home, b"x", "deploy").returncode == 100
    assert send(home, b"x" * 600).returncode == 100
    assert run(home, b"x").returncode == 100
    assert run(home, b"web1\t127.0.1.1\tweb\t\n", SERF_EVENT="member-join").returncode == 100
    assert run(home, b"", SERF_EVENT="query", SERF_QUERY_NAME="load").returncode == 100
    assert woken() == b""
    assert os.listdir(home / "inbox") == []


def test_a_flood_stays_bounded(home: Path, woken: Callable[[], bytes]) -> None:
    """When the inbox is full, the handler says so, writes no more and does not wake."""
    for _ in range(inbox.MOST_FILES):
        inbox.put(str(home / "inbox"), b"x")
    completed = send(home, b"one more")
    assert completed.returncode == 111
    assert b"is full" in completed.stderr
    assert completed.stderr.count(b"\n") == 1
    assert len(os.listdir(home / "inbox")) == inbox.MOST_FILES
    assert woken() == b""


def test_a_query_is_answered_on_standard_output(home: Path) -> None:
    """A query prints its answer; a fault prints only one line on standard error, so that Serf sends nothing."""
    found = run(home, b"\n", SERF_EVENT="query", SERF_QUERY_NAME="lb-status")
    assert (found.returncode, found.stdout, found.stderr) == (0, b"lb1 UNCHANGED: fine\n", b"")
    assert run(home, b"1\n", SERF_EVENT="query", SERF_QUERY_NAME="lb-orders").stdout == b"a page"
    missing = run(home, b"2\n", SERF_EVENT="query", SERF_QUERY_NAME="lb-orders")
    assert (missing.returncode, missing.stdout) == (111, b"")
    assert b"does the daemon run?" in missing.stderr


def test_only_cheap_modules_are_imported(home: Path) -> None:
    """An event loads the cheap modules of the package and nothing heavy."""
    environ = {
        "SERF_HAPROXY_WAKE_FIFO": str(home / "wake"),
        "SERF_EVENT": "user",
        "SERF_USER_EVENT": "lb-order",
        "PATH": os.environ["PATH"],
    }
    argv = [sys.executable, "-I", "-X", "importtime", HANDLERS_DIR / "order_event.py"]
    told = subprocess.run(argv, env=environ, input=b"x", capture_output=True, check=True).stderr.decode()
    imported = {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}
    ours = {name for name in imported if name.startswith("serf_haproxy.serf.")}
    assert ours == {f"serf_haproxy.serf.{name}" for name in ("answers", "handling", "inbox", "printing", "wake")}
    assert not imported & HEAVY


def ask(query: Query, wait_until: Callable[..., None]) -> list[tuple[str, bytes]]:
    """Return all answers to a query."""
    found: list[tuple[str, bytes]] = []
    is_done = False

    def read() -> bool:
        nonlocal is_done
        more, is_done = query.read_answers()
        found.extend(more)
        return is_done

    wait_until(read, "end of the query")
    query.close()
    return sorted(found)


def test_a_real_agent_carries_events_and_answers(start_serf: Callable[..., Any], home: Path, wait_until: Any) -> None:
    """An event that one agent sends is in the inbox of another, two in a row included, and its query is answered."""
    os.mkfifo(home / "wake")
    fd = os.open(home / "wake", os.O_RDWR | os.O_NONBLOCK)
    other = start_serf("lb2", f"-event-handler={FILTERS}={HANDLER}", SERF_HAPROXY_WAKE_FIFO=str(home / "wake"))
    this = start_serf("lb1", f"-join={other.gossip}")
    address = RpcAddress(*this.rpc)
    connection = Connection(address)
    wait_until(lambda: len(connection.read_roster().members) == 2, "both members")
    sent = [b"first \xff\0", b"y" * EVENT_BYTES]
    for payload in sent:
        connection.send_event(inbox.EVENT, payload)
    found: list[bytes] = []
    wait_until(lambda: found.extend(inbox.take(str(home / "inbox"))) or len(found) == 2, "both orders")
    assert sorted(found) == sorted(sent)
    assert set(os.read(fd, 10)) == set(b"o")
    os.close(fd)
    os.utime(home / "answers" / "status", (time.time(), time.time()))
    assert ask(Query(address, "lb-status", b"", ["lb2"], 1.0), wait_until) == [("lb2", b"lb1 UNCHANGED: fine\n")]
    assert ask(Query(address, "lb-status", b"", ["other"], 0.2), wait_until) == []
    (home / "answers" / "status").write_text("x" * 5000)
    (_, answer), *_ = ask(Query(address, "lb-status", b"", ["lb2"], 1.0), wait_until)
    assert len(answer) == answers.MOST_BYTES
    with pytest.raises(SerfFault, match="refused event"):
        connection.send_event(inbox.EVENT, b"z" * 600)
