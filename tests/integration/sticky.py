"""Clients with cookies, and one HAProxy as the application at every loopback address: it answers with that address."""

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import accepts
from integration.proxy import Proxy, free_port, wait_for
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.system.network import split_endpoint

COOKIE = "SRV"
_APPLICATION = """\
defaults
    mode http
    timeout client 60s
frontend everywhere
    bind 0.0.0.0:{port}
    http-request return status 200 content-type text/plain lf-string %[dst]
"""


@contextlib.contextmanager
def everywhere(directory: Path) -> Iterator[int]:
    """Serve HTTP at every address of loopback for the length of a block; yield the port."""
    port = free_port()
    path = directory / f"application-{port}.cfg"
    path.write_text(_APPLICATION.format(port=port))
    process = subprocess.Popen(["haproxy", "-f", path, "-db"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: accepts("127.0.0.1", port), "the application")
        yield port
    finally:
        process.terminate()
        process.wait(10)


class Answer(NamedTuple):
    """An answer: its status, the address of the server, and the cookie that it sets, None for none."""

    status: int
    server: str
    cookie: str | None


class Connection:
    """One keep-alive connection to a frontend, which opens again when HAProxy has closed it after an answer."""

    def __init__(self, endpoint: str, source: str = "") -> None:
        host, port = split_endpoint(endpoint)
        self._where = host, int(port)
        self._source = source, 0
        self._socket: socket.socket | None = None

    def get(self, cookie: str | None = None, host: str = "any.test", path: str = "/") -> Answer:
        """Make a request, with a cookie if the client has one."""
        self._socket = self._socket or socket.create_connection(self._where, 10, self._source)
        more = f"Cookie: {COOKIE}={cookie}\r\n" if cookie else ""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self._socket.recv(65536)
            assert chunk, "the connection was closed before the answer"
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        text = head.decode("latin-1").lower()
        length = int(re.search(r"content-length: (\d+)", text)[1])  # type: ignore[index]
        while len(body) < length:
            body += self._socket.recv(65536)
        if "\r\nconnection: close" in text:
            self.close()
        found = re.search(rf"\r\nset-cookie: {COOKIE.lower()}=([^;\r]*)", text)
        return Answer(int(text.split(" ")[1]), body.decode(), found[1] if found else None)

    def close(self) -> None:
        """Close the connection."""
        if self._socket:
            self._socket.close()
        self._socket = None


class Crowd:
    """Clients of one host name, each with the server and the cookie that it has got."""

    def __init__(self, count: int, host: str = "any.test") -> None:
        self.clients: list[tuple[str, str | None]] = [("", None)] * count
        self._host = host

    @property
    def servers(self) -> set[str]:
        """The addresses of the servers that have clients."""
        return {server for server, _ in self.clients}

    def list_clients(self, server: str) -> list[int]:
        """Return the numbers of the clients of a server."""
        return [number for number, client in enumerate(self.clients) if client[0] == server]

    def visit(self, proxy: Proxy) -> list[int]:
        """Let every client make a request; return the numbers of those that got to another server than before."""
        moved = []
        with contextlib.closing(Connection(proxy.settings.frontend_bind)) as connection:
            for number, (server, cookie) in enumerate(self.clients):
                answer = connection.get(cookie, self._host)
                assert answer.status == 200
                if answer.server != server:
                    moved.append(number)
                    assert answer.cookie, "a new server comes with its cookie"
                    self.clients[number] = answer.server, answer.cookie
        return moved


def worker_pid(proxy: Proxy) -> int:
    """Return the process id of the worker."""
    return int(re.search(r"^Pid: (\d+)$", ask(proxy.settings.runtime_socket, "show info", 5), re.MULTILINE)[1])  # type: ignore[index]
