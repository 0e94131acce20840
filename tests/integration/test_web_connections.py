"""Connections of the web process at its end, after a rest of it, and with clients that misbehave."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import log_path, running_daemon
from integration.test_web import BIND, Web, join, serving

GET = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def connected(web: Web) -> Iterator[socket.socket]:
    """Open a connection for the length of a block."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", web.port), 30)) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the other side closes; a reset raises ConnectionResetError."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def exchange(web: Web, request: bytes) -> bytes:
    """Return the answer to a request; b"" for none."""
    with connected(web) as client:
        client.sendall(request)
        return read_all(client)


def test_a_request_that_came_before_the_end_is_answered(proxy: Proxy) -> None:
    """Who has asked before the process is told to end gets an answer, also while a reading waits for HAProxy."""
    with serving(proxy) as web:
        join(proxy, "web1", 9)
        wait_for(lambda: web.ask("/readyz").status == 200, "it is ready")
        assert proxy.process
        worker = max(psutil.Process(proxy.process.pid).children(), key=psutil.Process.create_time)
        worker.suspend()
        try:
            wait_for(lambda: measure_s(lambda: exchange(web, GET)) > 2, "answers wait for HAProxy")
            with connected(web) as client:
                client.sendall(GET)
                time.sleep(0.3)
                os.kill(web.daemon_pid, signal.SIGKILL)
                answer = read_all(client)
        finally:
            worker.resume()
        assert answer.startswith(b"HTTP/1.1 200 OK"), answer


def measure_s(work: Callable[[], object]) -> float:
    """Return how long something takes, seconds."""
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def test_a_request_is_answered_after_a_rest_of_the_process(proxy: Proxy) -> None:
    """The time that the process itself could not run is not held against the client."""
    with serving(proxy) as web:
        process = web.find_process()
        with connected(web) as client:
            time.sleep(0.5)  # it is taken, and its time runs; if it is taken later, it has more time
            process.suspend()
            client.sendall(GET)
            time.sleep(6)  # longer than a request may take
            process.resume()
            assert read_all(client).startswith(b"HTTP/1.1 200 OK")


REFUSED = [
    (b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", 431),
    (b"GET /" + b"a" * 7000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"PUT /v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000, 405),
    (b"POST /v1/nodes/web1/maint HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000, 413),
    (b"POST /v1/nodes/web1/maint HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /v1/../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET /v1%2fstatus HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET //v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET /v1/services/nodes/servers/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET /v1/services/nodes/servers/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"GET /v1/status HTTP/1.1\r\n\r\n", 403),
    (b"GET /v1/status HTTP/1.1\r\nHost: rebound.example:1940\r\n\r\n", 403),
    (b"GET /v1/status HTTP/1.1\r\nHost: localhost.rebound.example\r\n\r\n", 403),
    (b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1.rebound.example\r\n\r\n", 403),
    (b"GET /v1/status HTTP/1.1\r\nHost: localhost@rebound.example\r\n\r\n", 403),
    (b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example\r\n\r\n", 400),
]


def test_what_is_refused_is_told(proxy: Proxy) -> None:
    """Every wrong request gets its answer, also one that is longer than what is read of it."""
    with serving(proxy) as web:
        for request, status in REFUSED:
            answer = exchange(web, request)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (request[:80], answer[:200])
            assert b"root:" not in answer
        for host in ("localhost", "localhost:1", "127.0.0.1:1940", "[::1]:1940", "203.0.113.9"):
            answer = exchange(web, f"GET /v1/status HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200 "), host


def test_strangers_get_401_and_nothing_else(proxy: Proxy, short_dir: Path) -> None:
    """With a token every wrong request of a stranger is refused; the log has no line of it."""
    token = short_dir / "token"
    token.write_text("a-token-of-24-characters")
    with serving(proxy, SERF_HAPROXY_WEB_TOKEN_FILE=str(token)) as web:
        for shown in (
            b"Basic \xe9\xe9\xe9\xe9",
            b"Basic ====",
            b"Bearer \xff",
            b"Bearer " + b"x" * 7000,
            b"a-token-of-24-characters",
        ):
            for path in (b"/", b"/v1/stream", b"/v1/%2e%2e/config", b"/nothing"):
                request = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + shown + b"\r\n\r\n"
                assert exchange(web, request).startswith(b"HTTP/1.1 401 "), (shown[:20], path)
        assert exchange(web, b"\x16\x03\x01\x00\xa5" + b"\xff" * 100 + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in log_path(proxy).read_text()


def test_a_client_that_drips_is_ended(proxy: Proxy) -> None:
    """A request that comes byte by byte is ended although it goes on, in its head and in its body."""
    post = b"POST /v1/nodes/a/maint HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n"
    starts = (b"GET / HTTP/1.1\r\nX: ", post)
    with serving(proxy) as web:
        for start in starts:
            with connected(web) as client:
                client.sendall(start)
                client.settimeout(0.2)
                deadline_s = time.monotonic() + 60
                with contextlib.suppress(ConnectionError):
                    while time.monotonic() < deadline_s:
                        client.sendall(b"x")
                        with contextlib.suppress(TimeoutError):
                            if not client.recv(100):
                                break
                assert time.monotonic() < deadline_s


def test_pages_that_do_not_read_need_little_memory(proxy: Proxy) -> None:
    """Sixteen deaf pages of a thousand nodes are kept within bounds, a further one is refused, and all are ended."""
    for number in range(1000):
        proxy.record(f"web{number:04}", 10_000 + number)
    with serving(proxy) as web, contextlib.ExitStack() as stack:
        wait_for(lambda: len(json.loads(web.read("/v1/status"))["members"]) == 1000, "all are read")
        process = web.find_process()
        before_bytes = process.memory_info().rss
        stream = b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        deaf = []
        for _ in range(16):
            client = stack.enter_context(contextlib.closing(socket.socket()))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", web.port))
            client.sendall(stream)
            deaf.append(client)
        wait_for(lambda: exchange_head(web, stream).startswith(b"HTTP/1.1 503 "), "one more page is refused")
        message_bytes = len(json.dumps(json.loads(web.read("/v1/status"))))
        assert process.memory_info().rss - before_bytes < 16 * 4 * message_bytes + 50 * 2**20
        wait_for(lambda: exchange_head(web, stream).startswith(b"HTTP/1.1 200 "), "the deaf ones are ended")
        assert process.is_running()


def exchange_head(web: Web, request: bytes) -> bytes:
    """Return the first bytes of the answer to a request."""
    with connected(web) as client:
        client.sendall(request)
        return client.recv(100)


FRONT = """
global
    log stderr local0
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend front
    bind 127.0.0.1:{port}
    http-request set-header Host localhost if !{{ path /kept }}
    http-request set-path /v1/status if {{ path /kept }}
    default_backend page
backend page
    server page unix@{path}
"""


def test_a_proxy_in_front_of_the_socket_shows_the_page_and_gives_no_orders(proxy: Proxy, short_dir: Path) -> None:
    """With the host localhost a proxy in front is answered, else not; orders of another origin are refused."""
    path, port = str(short_dir / "web.sock"), free_port()
    config = short_dir / "front.cfg"
    config.write_text(FRONT.format(port=port, path=path))
    with running_daemon(proxy, **{BIND: path}) as daemon, contextlib.ExitStack() as stack:
        wait_for(lambda: os.path.exists(path), lambda: log_path(proxy).read_text())
        front = subprocess.Popen(["haproxy", "-db", "-f", config])
        stack.callback(front.wait, 20)
        stack.callback(front.terminate)
        web = Web(proxy, daemon.pid, port)
        wait_for(web.is_up, "the proxy in front answers")
        named = {"Host": "lb1.example.com", "Origin": "https://lb1.example.com"}
        assert web.ask("/", **named).status == 200
        assert web.ask("/v1/status", **named).status == 200
        assert web.ask("/kept", **named).status == 403
        refused = web.ask("/v1/nodes/web1/maint", "DELETE", **named)
        assert refused.status == 403
        assert "another site" in refused.body
