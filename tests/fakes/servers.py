"""Servers that misbehave, on real sockets, each in a thread of its own."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(listener: socket.socket, talk: Talk) -> Iterator[None]:
    """Give every connection in turn to `talk`; what it leaves open stays open until the end of the context."""
    connections: list[socket.socket] = []

    def work() -> None:
        with contextlib.suppress(OSError):  # at the end the listener is shut down
            while True:
                connections.append(listener.accept()[0])
                with contextlib.suppress(OSError):
                    talk(connections[-1])

    thread = threading.Thread(target=work)
    with listener:
        thread.start()
        try:
            yield
        finally:
            for each in (listener, *connections):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


@contextlib.contextmanager
def serving_tcp(talk: Talk) -> Iterator[tuple[str, int]]:
    """Serve on a free TCP port; yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    with serving(listener, talk):
        yield listener.getsockname()


@contextlib.contextmanager
def serving_unix(path: str | os.PathLike[str], talk: Talk) -> Iterator[str]:
    """Serve on a unix socket; yield its path."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen()
    with serving(listener, talk):
        yield os.fspath(path)


def at_once(talk: Talk) -> Talk:
    """Talk on each connection in a thread of its own, so that one does not wait for another."""

    def work(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            talk(connection)

    return lambda connection: threading.Thread(target=work, args=(connection,), daemon=True).start()


def be_silent(_connection: socket.socket) -> None:
    """Say nothing, and keep the connection."""


def close_at_once(connection: socket.socket) -> None:
    """Close the connection without a word."""
    connection.close()


def pour(connection: socket.socket) -> None:
    """Send bytes as fast as they are taken, until the client goes."""
    while True:
        connection.sendall(b"x" * 65536)


def drip(connection: socket.socket) -> None:
    """Send a byte every now and then until the client goes, so that no single read ever waits for long."""
    while True:
        connection.sendall(b"x")
        time.sleep(0.0002)
