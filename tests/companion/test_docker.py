"""What a container engine says: events, and answers of an engine that is broken or hostile."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serf_haproxy.autoscale.executor import ExecutorFault
from serf_haproxy.companion.docker import Docker, Event, Events, find_signal, read_event

pytestmark = pytest.mark.usefixtures("time_limit")

NUMBER = "ab" * 32
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


def event(**changes: object) -> bytes:
    """Return an event as the engine sends it, with some parts changed."""
    actor = {"ID": NUMBER, "Attributes": {"signal": "15", "name": "x"}}
    return json.dumps({"Type": "container", "Action": "kill", "Actor": actor} | changes).encode()


class FakeEngine:
    """Answers each request with the next one of some answers, on a real socket."""

    def __init__(self, path: Path, *answers: bytes) -> None:
        self.path = str(path)
        self.requests: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, args=(answers,))
        self._thread.start()

    def _serve(self, answers: tuple[bytes, ...]) -> None:
        for answer in answers:
            connection, _ = self._socket.accept()
            with connection:
                self.requests.append(connection.recv(65536))
                with contextlib.suppress(OSError):  # the reader has had enough
                    connection.sendall(answer)

    def close(self) -> None:
        """Stop once all answers are given."""
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def engines() -> Iterator[list[FakeEngine]]:
    """Yield a list of engines that are closed after the test."""
    engines: list[FakeEngine] = []
    yield engines
    for engine in engines:
        engine.close()


def read_to_end(events: Events) -> None:
    """Read a stream as long as it gives something."""
    while True:
        events.read()


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (event(), Event(NUMBER, True, 15)),
        (event(Action="die"), Event(NUMBER, False, 0)),
        (event(Action="health_status: healthy"), Event(NUMBER, False, 0)),
        (event(Actor={"ID": NUMBER, "Attributes": {"signal": "SIGQUIT"}}), Event(NUMBER, True, 3)),
        (event(Actor={"ID": NUMBER, "Attributes": {"signal": 15}}), Event(NUMBER, True, 0)),
        (event(Actor={"ID": NUMBER, "Attributes": {}}), Event(NUMBER, True, 0)),
        (event(Actor={"ID": "../../x", "Attributes": {}}), None),
        (event(Actor={"ID": NUMBER, "Attributes": None}), None),
        (event(Actor=None), None),
        (b"[]", None),
        (b"{", None),
        (b"[" * 100_000, None),
        (b"\xff\xfe", None),
    ],
)
def test_events_are_read(line: bytes, read: Event | None) -> None:
    """An event says which container, and with which signal one is being stopped; all else is none."""
    assert read_event(line) == read


@pytest.mark.parametrize(
    ("text", "number"),
    [("15", 15), ("TERM", 15), ("SIGTERM", 15), ("sigquit", 3), ("SIGRTMIN+3", 37), ("", 0), ("SIGX", 0), ("_DFL", 0)],
)
def test_signals_are_found(text: str, number: int) -> None:
    """Signals are written as images and engines write them."""
    assert find_signal(text) == number


def test_an_endless_line_ends_the_stream(tmp_path: Path, engines: list[FakeEngine]) -> None:
    """An engine that sends a line without an end is no engine."""
    engine = FakeEngine(tmp_path / "s", HEAD + event() + b"\n" + b"x" * 2_000_000)
    engines.append(engine)
    events = Docker(engine.path).follow()
    with pytest.raises(ExecutorFault, match="has ended its stream"):
        read_to_end(events)
    events.close()
    events.close()
    assert engine.requests[0].startswith(b"GET /events?filters=")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 500 No\r\n\r\n", b"x" * 100_000, b"HTTP/1.0 200 OK\r\n"])
def test_a_stream_that_is_none_is_a_fault(tmp_path: Path, engines: list[FakeEngine], answer: bytes) -> None:
    """An engine that sends no events is told from one that has none."""
    engine = FakeEngine(tmp_path / "s", answer)
    engines.append(engine)
    with pytest.raises(ExecutorFault, match=r"sends no events|no answer"):
        Docker(engine.path).follow()


def test_numbers_that_are_none_are_not_asked_about(tmp_path: Path, engines: list[FakeEngine]) -> None:
    """What an engine lists gets into the path of a request only as 64 hexadecimal digits."""
    listed = json.dumps([{"Id": "../../secrets"}, {"Id": 7}, None, {"Id": NUMBER}]).encode()
    engine = FakeEngine(tmp_path / "s", HEAD + listed, b"HTTP/1.0 404 Not Found\r\n\r\n{}")
    engines.append(engine)
    assert Docker(engine.path).list_running() == []
    engine.close()
    assert [request.split()[0] for request in engine.requests] == [b"GET", b"GET"]
    assert engine.requests[1].split()[1] == f"/containers/{NUMBER}/json".encode()


def test_no_socket_is_a_fault(tmp_path: Path) -> None:
    """Where there is no engine, the message says what to look at."""
    with pytest.raises(ExecutorFault, match="may this user open the socket"):
        Docker(str(tmp_path / "none")).follow()
