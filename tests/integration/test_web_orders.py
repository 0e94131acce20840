"""Orders about nodes over HTTP: at a Unix socket alone, from no other site, bounded, and told with their author."""

import contextlib
import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from integration.proxy import Proxy, wait_for
from integration.test_daemon import log_path, running_daemon
from integration.test_orders import run
from integration.test_web import BIND, serving

PATH = "/v1/nodes/web1/maint"
JSON = "Content-Type: application/json"


class Answer(NamedTuple):
    """An answer: status code, head and body."""

    status: int
    head: str
    body: str


class Client:
    """A client at a Unix socket.

    Args:
        path: The socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, data: bytes) -> Answer:
        """Send bytes, and return the answer; status 0 where the connection ended without one."""
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(20)
            client.connect(str(self.path))
            with contextlib.suppress(OSError):  # it may have been refused before the end
                client.sendall(data)
            said = b""
            with contextlib.suppress(ConnectionResetError):
                while more := client.recv(65536):
                    said += more
        head, _, body = said.decode().partition("\r\n\r\n")
        return Answer(int(head.split()[1]) if head else 0, head, body)

    def ask(self, method: str, path: str = PATH, told: object = None, *headers: str) -> Answer:
        """Send a request with an object as its body."""
        body = b"" if told is None else json.dumps(told).encode()
        lines = [f"{method} {path} HTTP/1.1", *({"Host: localhost"} if not _has_host(headers) else ()), *headers]
        lines += [JSON, f"Content-Length: {len(body)}"] if told is not None else []
        return self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def list_orders(self) -> list[dict[str, Any]]:
        """Return the orders in the status."""
        return list(json.loads(self.ask("GET", "/v1/status").body)["orders"])


def _has_host(headers: tuple[str, ...]) -> bool:
    return any(header.startswith("Host:") for header in headers)


@contextlib.contextmanager
def listening(proxy: Proxy, **environment: str) -> Iterator[Client]:
    """Run the daemon with its web process at a Unix socket."""
    client = Client(Path(proxy.settings.state_dir).parent / "web.sock")

    def is_up() -> bool:
        with contextlib.suppress(OSError):
            return client.ask("GET", "/healthz").status == 200
        return False

    with running_daemon(proxy, **({BIND: str(client.path)} | environment)):
        wait_for(is_up, lambda: log_path(proxy).read_text())
        yield client


def test_an_order_is_given_and_undone(proxy: Proxy) -> None:
    """POST gives an order of the user at the other end, which counts as one of the command does; DELETE undoes it."""
    with listening(proxy) as client:
        for name in ("web1", "web2"):
            proxy.record(name, 9)
        before_s = time.time()
        answer = client.ask("POST", PATH, {"mode": "stop", "reason": "disk", "until": "1h"})
        assert answer.status == 200, answer
        (order,) = json.loads(answer.body)["orders"]
        assert (order["node"], order["service"], order["mode"], order["reason"]) == ("web1", "", "stop", "disk")
        assert order["author"] == getpass.getuser()
        assert 3590 < order["until_ms"] / 1000 - before_s < 3660
        wait_for(lambda: [one["node"] for one in client.list_orders()] == ["web1"], lambda: str(client.list_orders()))
        assert "web1: an order takes it out of service: disk" in run(proxy, "maint", "list")
        answer = client.ask(
            "POST", "/v1/services/nodes/servers/web2/maint", {"mode": "drain", "reason": "x", "by": "al"}
        )
        assert json.loads(answer.body)["orders"][0]["service"] == "nodes"
        wait_for(lambda: "(by al)" in run(proxy, "history", "web2"), lambda: run(proxy, "history"))
        assert client.ask("DELETE", "/v1/nodes/web2/maint", {"by": "bo"}).status == 200
        assert client.ask("DELETE").status == 200
        wait_for(lambda: not client.list_orders(), lambda: str(client.list_orders()))
        again = client.ask("DELETE")
        assert (again.status, "there is no order about web1" in again.body) == (400, True)


def test_one_order_among_several_is_undone_alone(proxy: Proxy) -> None:
    """With its time an order is undone alone; where another one has replaced it, that one stays."""
    with listening(proxy) as client:
        proxy.record("web1", 9)
        inner = "/v1/services/nodes/servers/web1/maint"
        told = client.ask("POST", PATH, {"mode": "stop", "reason": "disk", "by": "alice"}).body
        first = json.loads(told)["orders"][0]["at_ms"]
        assert client.ask("POST", inner, {"mode": "drain", "reason": "load", "by": "bob"}).status == 200

        def list_reasons() -> list[str]:
            return sorted(one["reason"] for one in client.list_orders())

        wait_for(lambda: list_reasons() == ["disk", "load"], lambda: str(client.list_orders()))
        assert client.ask("POST", PATH, {"mode": "drain", "reason": "fan", "by": "carol"}).status == 200
        wait_for(lambda: list_reasons() == ["fan", "load"], lambda: str(client.list_orders()))
        answer = client.ask("DELETE", PATH, {"at_ms": first, "by": "alice"})
        assert (answer.status, "no such order about web1 any more" in answer.body) == (400, True), answer
        (second,) = (one["at_ms"] for one in client.list_orders() if one["reason"] == "fan")
        assert client.ask("DELETE", inner, {"at_ms": second}).status == 400
        assert client.ask("DELETE", PATH, {"at_ms": second}).status == 200
        wait_for(lambda: list_reasons() == ["load"], lambda: str(client.list_orders()))


def test_what_gives_no_order(proxy: Proxy) -> None:
    """GET, another site, another type, another host and a wrong body give none, each with its own answer."""
    good = {"mode": "drain", "reason": "disk"}
    with listening(proxy) as client:
        for method in ("GET", "HEAD", "PUT", "OPTIONS", "TRACE"):
            answer = client.ask(method)
            assert (answer.status, "Allow: POST, DELETE" in answer.head) == (405, True), method
            assert "Access-Control-" not in answer.head
        sites = (
            "Origin: http://evil.example",
            "Origin: null",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
        )
        for header in (*sites, "Host: evil.example"):
            for method in ("POST", "DELETE"):
                assert client.ask(method, PATH, good, header).status == 403, (method, header)
        assert client.ask("POST", PATH, good, "Host: localhost:1", "Origin: http://localhost:2").status == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            body = json.dumps(good)
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
            assert client.send(f"{head}\r\n\r\n{body}".encode()).status == 415, kind
        wrong: list[object] = [[], "x", 1, {}, {"mode": "drain"}, {"mode": "kill", "reason": "x"}, good | {"more": 1}]
        wrong += [good | {"until": "yesterday"}, good | {"until": "2001-01-01T00:00Z"}, good | {"reason": 7}]
        wrong += [
            good | {"is_local": "yes"},
            good | {"reason": "x" * 3000},
            good | {"by": "a\nb"},
            good | {"at_ms": "1"},
        ]
        wrong += [good | {name: "\ud800"} for name in ("mode", "reason", "until", "by")]
        for told in wrong:
            assert client.ask("POST", PATH, told).status == 400, told
        for path in ("/v1/nodes/%2e%2e%2fx/maint", "/v1/nodes//maint", "/v1/nodes/a%0ab/maint"):
            assert client.ask("POST", path, good).status == 400, path
        assert client.ask("POST", "/v1/services/no%20name/servers/web1/maint", good).status == 400
        assert client.list_orders() == []
        same = ("Host: localhost:1940", "Origin: http://localhost:1940", "Sec-Fetch-Site: same-origin")
        assert client.ask("POST", PATH, good, *same).status == 200


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("Transfer-Encoding: chunked", b"5\r\n{}   \r\n0\r\n\r\n", 411),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", b"{}", 400),
        ("Transfer-Encoding:\r\nContent-Length: 2", b"{}", 400),
        ("Content-Length: 2\r\nContent-Length: 2", b"{}", 400),
        ("Content-Length: +2", b"{}", 400),
        ("Content-Length: 2, 2", b"{}", 400),
        ("Content-Length: 0x2", b"{}", 400),
        ("Content-Length: -1", b"", 400),
        ("Content-Length: 99999999999999999999", b"", 400),
        ("Content-Length: 10000000", b"x" * 100, 413),
        ("X: 1", b"", 411),
        ("Content-Length: 2", b"\xff\xfe", 400),
        ("Content-Length: 4000", b"[" * 4000, 400),
    ],
)
def test_bodies_that_are_no_order(proxy: Proxy, head: str, body: bytes, status: int) -> None:
    """A body of unclear length, one that is too long, and one that is no JSON are refused."""
    with listening(proxy) as client:
        data = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\n{head}\r\n\r\n".encode() + body
        assert client.send(data).status == status
        assert client.list_orders() == []


def test_what_follows_a_body_is_no_request(proxy: Proxy) -> None:
    """A second request on a connection is not read, whatever the first one says of its length."""
    hidden = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: 33\r\n\r\n".encode()
    hidden += b'{"mode": "stop", "reason": "none"}'
    with listening(proxy) as client:
        for head in (
            "GET /healthz HTTP/1.1\r\nContent-Length: 0",
            "GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked",
        ):
            answer = client.send(f"{head}\r\nHost: localhost\r\n\r\n0\r\n\r\n".encode() + hidden)
            assert answer.body.count("HTTP/1.1") == 0, answer
        assert client.list_orders() == []


def test_at_a_port_no_order_is_taken(proxy: Proxy, short_dir: Path) -> None:
    """At loopback, with a token or without, POST and DELETE get 403, and the answer says what to do instead."""
    token = short_dir / "token"
    token.write_text("a-token-of-24-characters")
    with serving(proxy) as web:
        for method in ("POST", "DELETE"):
            answer = web.ask(PATH, method, **{"Content-Length": "0"})
            assert (answer.status, "serf-haproxy maint" in answer.body) == (403, True)
        assert web.ask(PATH).status == 405
        assert web.ask("/v1/status", "POST", **{"Content-Length": "0"}).status == 405
    with serving(proxy, SERF_HAPROXY_WEB_TOKEN_FILE=str(token)) as web:
        assert web.ask(PATH, "POST", **{"Content-Length": "0"}).status == 401
        bearer = {"Authorization": "Bearer a-token-of-24-characters", "Content-Length": "0"}
        assert web.ask(PATH, "POST", **bearer).status == 403
    assert not os.path.exists(os.path.join(proxy.settings.state_dir, "given"))


def test_the_socket_asks_for_the_token_where_there_is_one(proxy: Proxy, short_dir: Path) -> None:
    """A token that is set counts at a Unix socket, too."""
    token = short_dir / "token"
    token.write_text("a-token-of-24-characters")
    with listening(proxy, SERF_HAPROXY_WEB_TOKEN_FILE=str(token)) as client:
        good = {"mode": "drain", "reason": "disk"}
        assert client.ask("POST", PATH, good).status == 401
        assert client.ask("POST", PATH, good, "Authorization: Bearer a-token-of-24-characters").status == 200
