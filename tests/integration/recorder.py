"""A server that records how HAProxy reaches it: PROXY lines, TLS names, HTTP/2, and the paths that it asks for."""

import contextlib
import select
import socket
import socketserver
import ssl
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

CERTIFICATE = Path(__file__).with_name("localhost.pem")  # with its key

_V2 = b"\r\n\r\n\0\r\nQUIT\n"


class Visit(NamedTuple):
    """One request.

    Attributes:
        path: What was asked for; "" when it was not HTTP/1.
        proxy: Version of the PROXY line before it, 0 for none.
        tls: Server name and protocol of the TLS handshake; None without TLS.
        is_h2: Whether it was the beginning of HTTP/2.
        connection: Number of the connection.
    """

    path: str
    proxy: int
    tls: tuple[str | None, str | None] | None
    is_h2: bool
    connection: int = 0


class Recorder(socketserver.ThreadingTCPServer):
    """Answers every HTTP/1 request with 200 and its address, or hangs, and remembers all visits.

    Args:
        address: Where to listen; port 0 chooses one.
        is_tls: Whether it speaks TLS.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], is_tls: bool = False) -> None:
        super().__init__(address, _Visitor)
        self.visits: list[Visit] = []
        self.statuses: dict[str, int] = {}  # by the path's first part
        self.context: ssl.SSLContext | None = None
        if is_tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(CERTIFICATE)
            self.context.sni_callback = lambda wrapped, name, _: setattr(wrapped, "asked_name", name)
            self.context.set_alpn_protocols(["h2", "http/1.1"])
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def count(self, path: str) -> int:
        """Return how often a path was asked for."""
        return sum(visit.path == path for visit in list(self.visits))

    def handle_error(self, *_: Any) -> None:
        """Ignore connections that HAProxy resets."""


class _Visitor(socketserver.BaseRequestHandler):
    server: Recorder

    def handle(self) -> None:
        """Serve one connection."""
        connection: socket.socket = self.request
        connection.settimeout(20)
        version = self._read_proxy_line(connection)
        tls = None
        if self.server.context:
            wrapped = self.server.context.wrap_socket(connection, server_side=True)
            tls, connection = (getattr(wrapped, "asked_name", None), wrapped.selected_alpn_protocol()), wrapped
        with contextlib.closing(connection):
            while self._answer(connection, version, tls):
                pass

    def _read_proxy_line(self, connection: socket.socket) -> int:
        head = b""
        deadline = time.monotonic() + 20
        while len(head) < 16 and time.monotonic() < deadline:
            select.select([connection], [], [], 1)
            head = connection.recv(16, socket.MSG_PEEK)
            if not head or (not (b"PROXY " + b"x" * 10).startswith(head[:6]) and not _V2.startswith(head[:12])):
                return 0
        if head.startswith(b"PROXY "):
            while connection.recv(1) != b"\n":
                pass
            return 1
        connection.recv(16 + int.from_bytes(head[14:16], "big"))
        return 2

    def _answer(self, connection: socket.socket, version: int, tls: tuple[str | None, str | None] | None) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(4096)
            if not chunk:
                return False
            data += chunk
        is_h2 = data.startswith(b"PRI * HTTP/2.0")
        path = "" if is_h2 else data.split(b" ")[1].decode("ascii")
        self.server.visits.append(Visit(path, version, tls, is_h2, id(self)))
        if is_h2:
            return False
        status = self.server.statuses.get(path.rpartition("/")[0], 200)
        if not status:
            time.sleep(20)
        body = b"" if data.startswith(b"HEAD") else str(self.server.server_address[0]).encode()
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        return True
