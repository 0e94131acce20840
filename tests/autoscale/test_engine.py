"""What the executors of containers make of an engine that hangs, breaks off or says something else.

The engine is a socket that says what a test wants; `tests/containers/test_autoscale_engine.py` has a real one.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serf_haproxy.autoscale.containers import Containers
from serf_haproxy.autoscale.engine import Engine
from serf_haproxy.autoscale.executor import ExecutorFault
from serf_haproxy.services.scaling import Scale

LIMIT_S = 0.5


@contextlib.contextmanager
def speaking(path: Path, speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield the path of a socket at which each request is answered by a function, until the block ends."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), listener.accept()[0] as one:
                one.recv(65536)
                speak(one)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.05)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield str(path)
        finally:
            over.set()
            thread.join()


def dribble(begin: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Return what sends a beginning, and then a little again and again for ten seconds, until nothing reads it."""

    def speak(one: socket.socket) -> None:
        one.sendall(begin)
        for _ in range(200):
            time.sleep(0.05)
            one.sendall(again)

    return speak


def answer(body: bytes, length: int | None = None) -> Callable[[socket.socket], None]:
    """Return what sends an answer, and says that it is as long."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return lambda one: one.sendall(head % (len(body) if length is None else length) + body)


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\n", b"X-Wait: 1\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Wait: ", b"1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n", b"0"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["nothing", "lines of a head", "one line", "a body", "the length of a chunk", "goes on"],
)
def test_an_answer_that_never_ends_is_given_up_in_time(tmp_path: Path, begin: bytes, again: bytes) -> None:
    """The limit is that of the whole exchange, wherever the engine hangs, and however it dribbles."""
    with speaking(tmp_path / "s", dribble(begin, again)) as path:
        began_s = time.monotonic()
        with pytest.raises(ExecutorFault, match="gave no answer in 0.5 s"):
            Engine(path).ask("GET", ("containers", "json"), LIMIT_S)
        assert time.monotonic() - began_s < LIMIT_S + 4


@pytest.mark.parametrize(
    "speak",
    [answer(b'[{"Labels"', 1000), answer(b'{"message": "busy"}'), answer(b"[")],
    ids=["cut", "an object", "no JSON"],
)
def test_a_list_that_is_none_is_a_fault(tmp_path: Path, speak: Callable[[socket.socket], None]) -> None:
    """Where the engine does not say which containers there are, that does not mean that there is none."""
    with speaking(tmp_path / "s", speak) as path:
        executor = Containers("web", Scale(executor="docker", max=3, slots="web-", template="t", socket=path))
        with pytest.raises(ExecutorFault, match=f"the engine at {path}"):
            executor.list_filled()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"Id": "1", "State": "up"}'])
def test_a_container_of_another_shape_is_a_fault(tmp_path: Path, body: bytes) -> None:
    """Neither a start nor a stop takes something else for a container, or for none."""
    with speaking(tmp_path / "s", answer(body)) as path:
        executor = Containers("web", Scale(executor="docker", max=3, slots="web-", template="t", socket=path))
        for act in (executor.start, executor.stop):
            with pytest.raises(ExecutorFault, match=f"the engine at {path} does not say what web-1 is"):
                act("web-1")
