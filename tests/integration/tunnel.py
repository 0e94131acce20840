"""A TCP port of loopback that leads to a Unix socket, as `ssh -L PORT:SOCKET` makes one."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

from fakes.servers import serving_in_thread


@contextlib.contextmanager
def tunnel(path: str) -> Iterator[int]:
    """Forward a free port of loopback to a Unix socket for the length of the block; yield the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as far:
                far.connect(path)
                back = threading.Thread(target=_copy, args=(far, self.request), daemon=True)
                back.start()
                _copy(self.request, far)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with serving_in_thread(Server(("127.0.0.1", 0), Handler)) as port:
        yield port


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
