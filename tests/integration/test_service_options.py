"""The options of a service with a real HAProxy: each is in force for servers that join at run time."""

import contextlib
import http.client
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.servers import at_once, serving_tcp
from fakes.web import answering
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.recorder import CERTIFICATE
from integration.test_services import offer, telling, wait_up
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.haproxy.socket import ask

pytestmark = pytest.mark.usefixtures("time_limit")

HOST = {"Host": "api.test"}
API = '[api]\nroutes = ["api.test"]\n'


@contextlib.contextmanager
def serving(directory: Path, services: str) -> Iterator[Proxy]:
    """Run HAProxy with a services file, and without servers."""
    (directory / "services.toml").write_text(services)
    with running_proxy(directory) as proxy:
        yield proxy
        assert proxy.reload_count() == 0, "what members do took a reload"


def join(proxy: Proxy, **ports: int) -> None:
    """Let nodes join the service api, and wait until they are up."""
    for name, port in ports.items():
        offer(proxy, name, api=port)
    assert proxy.run_pass().verdict is Verdict.APPLIED
    wait_up(proxy, *(("api", name) for name in ports))


def get(proxy: Proxy, path: str = "/", **headers: str) -> tuple[int, str]:
    """Send a request; return the answer's status and body."""
    client = http.client.HTTPConnection(proxy.settings.frontend_bind, timeout=20)
    with contextlib.closing(client):
        client.request("GET", path, headers=HOST | {name.replace("_", "-"): value for name, value in headers.items()})
        answer = client.getresponse()
        return answer.status, answer.read().decode()


@contextlib.contextmanager
def other_haproxy(directory: Path, bind: str) -> Iterator[int]:
    """Run another HAProxy as an application that answers with its version of HTTP and the TLS name; yield its port."""
    port = free_port()
    path = directory / "other.cfg"
    path.write_text(
        "defaults\n    mode http\n    timeout client 20s\n"
        f"frontend application\n    bind 127.0.0.1:{port} {bind}\n"
        "    http-request return status 200 content-type text/plain lf-string "
        "HTTP/%[req.ver]\\ %[fc_http_major]\\ %[ssl_fc_sni]\n"
    )
    process = subprocess.Popen(["haproxy", "-db", "-f", path])

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        wait_for(answers, "the application listens", 20)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def test_servers_speak_http_2(short_dir: Path) -> None:
    """With server_proto h2, requests and health checks of a server that joins are HTTP/2."""
    with other_haproxy(short_dir, "proto h2") as port, serving(short_dir, f'{API}server_proto = "h2"\n') as proxy:
        join(proxy, a1=port)
        assert get(proxy) == (200, "HTTP/2.0 2 ")


@pytest.mark.parametrize(("proto", "said"), [("h1", "HTTP/1.1 1 localhost"), ("h2", "HTTP/2.0 2 localhost")])
def test_servers_speak_tls_and_are_verified(short_dir: Path, proto: str, said: str) -> None:
    """A server that joins is reached over TLS, if its certificate is signed by the authority and has the name."""
    tls = f'{API}tls = true\ntls_ca_file = "{CERTIFICATE}"\ntls_name = "localhost"\nserver_proto = "{proto}"\n'
    bind = f"ssl crt {CERTIFICATE} alpn h2,http/1.1"
    with other_haproxy(short_dir, bind) as port, serving(short_dir, tls) as proxy, answering() as web:
        join(proxy, a1=port)
        assert get(proxy) == (200, said)
        offer(proxy, "plain", api=web.port)
        proxy.run_pass()
        wait_for(lambda: "SSL handshake failure" in show_stat(proxy), lambda: show_stat(proxy), 20)
        assert [get(proxy) for _ in range(6)] == [(200, said)] * 6
        assert web.count == 0, "an application without TLS gets no request"


@pytest.mark.parametrize(
    "keys",
    [
        f'tls_ca_file = "{CERTIFICATE}"\ntls_name = "other.example"\n',
        f'tls_ca_file = "{CERTIFICATE.with_name("other.pem")}"\n',
    ],
)
def test_servers_with_another_certificate_get_nothing(short_dir: Path, keys: str) -> None:
    """A certificate with another name, or of another authority, keeps a server down."""
    bind = f"ssl crt {CERTIFICATE}"
    with other_haproxy(short_dir, bind) as port, serving(short_dir, f"{API}tls = true\n{keys}") as proxy:
        offer(proxy, "a1", api=port)
        assert proxy.run_pass().verdict is Verdict.APPLIED
        wait_for(lambda: "SSL" in show_stat(proxy), lambda: show_stat(proxy), 20)
        assert get(proxy)[0] == 503


def show_stat(proxy: Proxy) -> str:
    """Return HAProxy's rows about the service's servers."""
    return ask(proxy.settings.runtime_socket, "show stat api 4 -1", 5)


def test_a_server_has_a_limit_of_connections_and_of_those_that_wait(short_dir: Path) -> None:
    """Requests beyond server_maxconn wait, no longer than queue_timeout_s; those beyond server_maxqueue do not."""
    most: list[int] = []
    present: list[None] = []

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            if data.startswith(b"GET"):
                present.append(None)
                most.append(len(present))
                time.sleep(1.5)
                present.pop()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    limits = f"{API}server_maxconn = 2\nserver_maxqueue = 2\nqueue_timeout_s = 0.5\nretries = 0\n"
    with serving_tcp(at_once(talk)) as (_, port), serving(short_dir, limits) as proxy:
        join(proxy, a1=port)
        answers: list[tuple[int, float]] = []

        def work() -> None:
            started_s = time.monotonic()
            answers.append((get(proxy)[0], time.monotonic() - started_s))

        clients = [threading.Thread(target=work) for _ in range(6)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(30)
        assert Counter(status for status, _ in answers) == {200: 2, 503: 4}, answers
        assert max(most) == 2
        assert all(took_s < 1.4 for status, took_s in answers if status == 503), answers


def test_a_silent_server_is_given_up(short_dir: Path) -> None:
    """After server_timeout_s without an answer the client gets 504."""

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            if data.startswith(b"HEAD"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with serving_tcp(at_once(talk)) as (_, port), serving(short_dir, f"{API}server_timeout_s = 0.3\n") as proxy:
        join(proxy, a1=port)
        started_s = time.monotonic()
        assert get(proxy)[0] == 504
        assert 0.2 < time.monotonic() - started_s < 10


def test_a_server_that_joins_starts_slowly(short_dir: Path) -> None:
    """With slowstart_s the share of a new server grows."""
    with answering() as one, answering() as other, serving(short_dir, f"{API}slowstart_s = 60\n") as proxy:
        join(proxy, a1=one.port)
        join(proxy, a2=other.port)
        for _ in range(50):
            get(proxy)
        throttles = [line.split(",")[29] for line in show_stat(proxy).splitlines() if ",a2," in line]
        assert throttles
        assert 0 < int(throttles[0].rstrip("%") or 100) < 100


@pytest.mark.parametrize("key", ["header:X-User", "cookie:user", "path"])
def test_a_hash_keeps_each_key_at_its_server(short_dir: Path, key: str) -> None:
    """Equal keys go to one server; another server takes keys only for itself, and gives them back as it leaves."""
    with contextlib.ExitStack() as stack:
        webs = {name: stack.enter_context(answering()) for name in ("a1", "a2", "a3")}
        proxy = stack.enter_context(serving(short_dir, f'{API}balance = "hash"\nhash_key = "{key}"\n'))

        def place(user: int) -> str:
            before = {name: web.count for name, web in webs.items()}
            headers = {"X_User": f"u{user}"} if key.startswith("header") else {"Cookie": f"a=b; user=u{user}"}
            assert get(proxy, f"/{user}" if key == "path" else "/", **({} if key == "path" else headers))[0] == 200
            return next(name for name, web in webs.items() if web.count > before[name])

        join(proxy, a1=webs["a1"].port, a2=webs["a2"].port)
        before = [place(user) for user in range(60)]
        assert before == [place(user) for user in range(60)]
        assert set(before) == {"a1", "a2"}
        join(proxy, a3=webs["a3"].port)
        after = [place(user) for user in range(60)]
        assert "a3" in after
        assert all(new in (old, "a3") for old, new in zip(before, after, strict=True))
        offer(proxy, "a3", "left", api=webs["a3"].port)
        proxy.run_pass()
        assert before == [place(user) for user in range(60)]


@pytest.mark.parametrize(("backups", "used"), [("first", 1), ("all", 2)])
def test_backup_servers_serve_alone_or_together(short_dir: Path, backups: str, used: int) -> None:
    """While no other server is up, one backup server or all of them get the requests."""
    with answering() as one, answering() as other, serving(short_dir, f'{API}backups = "{backups}"\n') as proxy:
        for name, web in (("a1", one), ("a2", other)):
            offer(proxy, name, api=f"{web.port}:backup")
        proxy.run_pass()
        wait_up(proxy, ("api", "a1"), ("api", "a2"))
        assert {get(proxy)[0] for _ in range(20)} == {200}
        assert sum(web.count > 0 for web in (one, other)) == used


def test_only_clients_of_the_networks_are_served(short_dir: Path) -> None:
    """Other clients get 403, or their connection is closed where there is no HTTP."""
    other = 'client_networks = ["10.0.0.0/8", "fd00::/8"]\n'
    port = free_port()
    text = f'[api]\nroutes = ["api.test"]\n{other}[own]\nroutes = ["own.test"]\nclient_networks = ["127.0.0.0/8"]\n'
    text += f'[pg]\nmode = "tcp"\nbind = "127.0.0.1:{port}"\n{other}'
    with answering() as web, telling("pg1") as pg_port, serving(short_dir, text) as proxy:
        offer(proxy, "a1", api=web.port, own=web.port, pg=pg_port)
        proxy.run_pass()
        wait_up(proxy, ("api", "a1"), ("own", "a1"), ("pg", "a1"))
        assert get(proxy)[0] == 403
        assert get(proxy, Host="own.test")[0] == 200
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 10) as connection:
            assert connection.recv(10) == b""


def test_a_client_that_comes_too_often_is_refused(short_dir: Path) -> None:
    """Beyond the limit a client gets 429 or no connection, other clients are served, and the limit ends by itself."""
    bind = f"127.0.0.1:{free_port()}"
    limits = "rate_limit = 5\nrate_period_s = 2\n"
    services = API + limits + f'[echo]\nmode = "tcp"\nbind = "{bind}"\n' + limits
    with answering() as web, telling("hello") as tcp_port, serving(short_dir, services) as proxy:
        join(proxy, one=web.port)
        offer(proxy, "two", echo=tcp_port)
        assert proxy.run_pass().verdict is Verdict.APPLIED
        wait_up(proxy, ("echo", "two"))

        def visit(source: str) -> int:
            host, _, port = proxy.settings.frontend_bind.rpartition(":")
            client = http.client.HTTPConnection(host, int(port), timeout=20, source_address=(source, 0))
            with contextlib.closing(client):
                client.request("GET", "/", headers=HOST)
                answer = client.getresponse()
                assert answer.status == 200 or answer.headers["Retry-After"] == "2"
                return answer.status

        def connect(source: str) -> bytes:
            host, _, port = bind.rpartition(":")
            with (
                contextlib.suppress(ConnectionResetError),
                socket.create_connection((host, int(port)), 20, (source, 0)) as client,
            ):
                return client.recv(5)
            return b""

        assert [visit("127.0.0.2") for _ in range(8)] == [200] * 5 + [429] * 3
        assert visit("127.0.0.3") == 200
        assert [connect("127.0.0.2") for _ in range(8)] == [b"hello"] * 5 + [b""] * 3
        assert connect("127.0.0.3") == b"hello"
        answers = [visit("127.0.0.2")]
        while answers[-1] != 200 and len(answers) < 15:
            time.sleep(1)  # a client that goes on coming too often is not served
            answers.append(visit("127.0.0.2"))
        assert answers[-1] == 200
