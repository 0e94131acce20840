"""Misbehaving servers on real sockets, each in its own thread."""

import contextlib
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(listener: socket.socket, talk: Talk) -> Iterator[None]:
    """Pass each connection in turn to `talk`; connections that it leaves open are closed at the end of the block."""
    connections: list[socket.socket] = []

    def work() -> None:
        with contextlib.suppress(OSError):  # the listener is shut down at the end
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
def serving_in_thread(server: socketserver.BaseServer) -> Iterator[int]:
    """Run a server in a thread for the length of the block, and close it; yield its port."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def serving_tcp(talk: Talk) -> Iterator[tuple[str, int]]:
    """Serve on a free TCP port; yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    with serving(listener, talk):
        yield listener.getsockname()


@contextlib.contextmanager
def serving_unix(path: str | os.PathLike[str], talk: Talk) -> Iterator[str]:
    """Serve on a Unix socket; yield its path."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen()
    with serving(listener, talk):
        yield os.fspath(path)


def at_once(talk: Talk) -> Talk:
    """Serve each connection in its own thread, so that none waits for another."""

    def work(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            talk(connection)

    return lambda connection: threading.Thread(target=work, args=(connection,), daemon=True).start()


def be_silent(_connection: socket.socket) -> None:
    """Send nothing and keep the connection open."""


def close_at_once(connection: socket.socket) -> None:
    """Close the connection without sending anything."""
    connection.close()


def pour(connection: socket.socket) -> None:
    """Send bytes as fast as possible until the client disconnects."""
    while True:
        connection.sendall(b"x" * 65536)


def drip(connection: socket.socket) -> None:
    """Send single bytes with short pauses until the client disconnects, so that no read waits for long."""
    while True:
        connection.sendall(b"x")
        time.sleep(0.0002)
