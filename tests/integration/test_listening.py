"""The PROXY protocol from named networks, TLS passed on by the host that a client names, and HTTP/2; real HAProxy."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.certificates import Pair, make_pair, see_certificate, write_pair
from fakes.servers import Talk, at_once, serving_tcp
from integration.proxy import Proxy, free_port, running_proxy
from integration.sticky import everywhere
from integration.test_clients import echo, serving_echo
from integration.test_https import make_proxy, start
from integration.test_services import offer, wait_up
from integration.test_sticky import ask_all, join
from serf_haproxy.settings import variable
from serf_haproxy.system.network import split_endpoint

pytestmark = pytest.mark.usefixtures("time_limit")

PROXY, CLIENT, OTHER = "127.0.0.3", "192.0.2.7", "198.51.100.1"
NAMED = {variable("proxy_protocol_networks"): f"{PROXY}/32,10.0.0.0/8"}


def exchange(endpoint: str, source: str, host: str | None, *lines: str, greeting: str = "") -> str:
    """Send a greeting and a request from a loopback address; return the answer, "" for none. A host means TLS to it."""
    address, port = split_endpoint(endpoint)
    with contextlib.suppress(OSError):
        connection = socket.create_connection((address, int(port)), 10, (source, 0))
        with connection:
            connection.sendall(greeting.encode())
            if host:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                connection = context.wrap_socket(connection, server_hostname=host)
            with connection:
                head = "\r\n".join(["GET / HTTP/1.1", "Host: shop.test", "Connection: close", *lines])
                connection.sendall(f"{head}\r\n\r\n".encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return ""


def greet(client: str) -> str:
    """Return the PROXY protocol's line for a client."""
    return f"PROXY TCP4 {client} 203.0.113.1 40000 8443\r\n"


def find_client(answer: str) -> str:
    """Return what an application was told of the client, in the order of the header's lines."""
    lines = [line.partition(":") for line in answer.split("\r\n")]
    return ", ".join(value.strip() for name, _, value in lines if name.lower() == "x-forwarded-for")


def test_the_proxy_protocol_counts_from_named_networks_only(short_dir: Path) -> None:
    """A proxy in a named network says who the client is; from elsewhere its line is no request, and changes nothing."""
    with serving_echo(short_dir, **NAMED) as proxy:
        bind = proxy.settings.frontend_bind
        told = exchange(bind, PROXY, None, greeting=greet(CLIENT))
        assert find_client(told) == CLIENT
        assert "x-forwarded-port: 8443" in told.lower()
        assert find_client(exchange(bind, "127.0.0.4", None)) == "127.0.0.4"
        assert exchange(bind, "127.0.0.4", None, greeting=greet(CLIENT)).startswith("HTTP/1.1 400")
        assert CLIENT not in exchange(bind, "127.0.0.4", None, greeting=greet(CLIENT))
        assert exchange(bind, PROXY, None) == ""  # every connection of the proxy has to begin with it
        forged = exchange(bind, PROXY, None, "X-Forwarded-For: 6.6.6.6", greeting=greet(CLIENT))
        assert find_client(forged) == CLIENT


def test_without_the_setting_no_network_is_believed(short_dir: Path) -> None:
    """By default the PROXY protocol is not accepted."""
    with serving_echo(short_dir) as proxy:
        assert exchange(proxy.settings.frontend_bind, PROXY, None, greeting=greet(CLIENT)).startswith("HTTP/1.1 400")


def test_trusted_proxies_are_those_that_the_proxy_protocol_names(short_dir: Path) -> None:
    """Behind a proxy with the PROXY protocol, the address that it tells decides whether X-Forwarded-For is believed."""
    trusting = {variable("forwarded_for"): "append", variable("trusted_proxies"): f"{CLIENT}/32"}
    with serving_echo(short_dir, **NAMED, **trusting) as proxy:
        bind, said = proxy.settings.frontend_bind, "X-Forwarded-For: 203.0.113.9"
        assert find_client(exchange(bind, PROXY, None, said, greeting=greet(CLIENT))) == f"203.0.113.9, {CLIENT}"
        assert find_client(exchange(bind, PROXY, None, said, greeting=greet(OTHER))) == OTHER
        assert find_client(exchange(bind, "127.0.0.4", None, said)) == "127.0.0.4"


def test_the_proxy_protocol_comes_before_tls(short_dir: Path) -> None:
    """The HTTPS listener accepts it too, before the handshake; from another network the handshake fails."""
    proxy = make_proxy(short_dir, proxy_protocol_networks=f"{PROXY}/32")
    write_pair(short_dir / "certificates" / "shop.pem", "shop.test")
    try:
        with serving_tcp(at_once(echo)) as (host, port):
            start(proxy)
            proxy.record("web1", port, host)
            proxy.run_pass()
            proxy.wait_up("web1")
            bind = proxy.settings.https_bind
            told = exchange(bind, PROXY, "shop.test", greeting=greet(CLIENT))
            assert find_client(told) == CLIENT
            assert "x-forwarded-proto: https" in told.lower()
            assert find_client(exchange(bind, "127.0.0.4", "shop.test")) == "127.0.0.4"
            assert exchange(bind, "127.0.0.4", "shop.test", greeting=greet(CLIENT)) == ""
    finally:
        proxy.stop()


SERVICES = """\
[db]
mode = "tcp"
bind = "127.0.0.1:{port}"
sni = ["db.test", "*.db.test"]

[queue]
mode = "tcp"
bind = "127.0.0.1:{port}"
sni = ["*.test", "a.db.test"]

[pg]
mode = "tcp"
bind = "127.0.0.1:{other}"
"""


def answer_tls(pair: Pair, directory: Path) -> Talk:
    """Return a TLS server's side of a connection: it has the certificate and answers one message."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    path = directory / f"{threading.get_ident()}-{time.monotonic_ns()}.pem"
    path.write_text(pair.certificate + pair.key)
    context.load_cert_chain(path)

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(100)

    return at_once(talk)


@pytest.fixture
def shared(short_dir: Path) -> Iterator[tuple[Proxy, str, Pair, Pair]]:
    """Yield a HAProxy with two TLS services that share a listener, its endpoint, and their certificates."""
    port, db, queue = free_port(), make_pair("db.test"), make_pair("queue.test")
    (short_dir / "services.toml").write_text(SERVICES.format(port=port, other=free_port()))
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(serving_tcp(answer_tls(pair, short_dir)))[1] for pair in (db, queue)]
        proxy = stack.enter_context(running_proxy(short_dir, **NAMED))
        offer(proxy, "node1", db=ports[0], pg=ports[0])
        offer(proxy, "node2", queue=ports[1])
        assert proxy.run_pass().problems == ()
        wait_up(proxy, ("db", "node1"), ("queue", "node2"), ("pg", "node1"))
        yield proxy, f"127.0.0.1:{port}", db, queue


def test_the_host_of_the_handshake_chooses_the_service(shared: tuple[Proxy, str, Pair, Pair]) -> None:
    """Two services share a listener. Each answers its own handshakes; a precise host comes before a wildcard."""
    _, bind, db, queue = shared
    for host, expected in {
        "db.test": db,
        "DB.Test": db,
        "x.db.test": db,
        "a.db.test": queue,
        "other.test": queue,
    }.items():
        assert see_certificate(bind, host) == expected.certificate, host
    assert see_certificate(bind, "db.example") is None
    assert see_certificate(bind, None) is None


def test_a_client_that_names_no_host_is_refused_in_time(shared: tuple[Proxy, str, Pair, Pair]) -> None:
    """What is not TLS is refused at once, and a silent client after 5 seconds."""
    _, bind, _, _ = shared
    address, port = split_endpoint(bind)
    with socket.create_connection((address, int(port)), 20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(100) == b""
    begin_s = time.monotonic()
    with socket.create_connection((address, int(port)), 20) as connection:
        connection.sendall(b"\x16\x03\x01")
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
    assert 3 < time.monotonic() - begin_s < 15


def test_tcp_services_accept_the_proxy_protocol(shared: tuple[Proxy, str, Pair, Pair]) -> None:
    """A proxy in a named network may be in front of a TCP service too: its line is not passed on to the server."""
    proxy, bind, _, _ = shared
    pg = next(line for line in Path(proxy.settings.services_file).read_text().splitlines()[::-1] if "bind" in line)
    for endpoint in (bind, pg.partition('"')[2].strip('"')):
        address, port = split_endpoint(endpoint)
        with socket.create_connection((address, int(port)), 10, (PROXY, 0)) as connection:
            connection.sendall(greet(CLIENT).encode())
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(connection, server_hostname="db.test") as secure:
                assert secure.version()


def test_a_shared_listener_is_left_alone_while_a_service_joins_it(short_dir: Path) -> None:
    """Without `sni` a listener is not shared: the line says how to."""
    port = free_port()
    listener = f'mode = "tcp"\nbind = "127.0.0.1:{port}"\n'
    (short_dir / "services.toml").write_text(f'[a]\n{listener}[b]\n{listener}sni = ["b.test"]\n')
    with running_proxy(short_dir) as proxy:
        problems = proxy.run_pass().problems
        assert len(problems) == 1
        assert "[b] bind = 127.0.0.1" in problems[0]
        assert "service a is there; to share it, give sni to both, b and a; it is left out" in problems[0]


def test_a_path_has_one_server_over_both_versions_of_http(short_dir: Path) -> None:
    """With `uri` only the path counts: not the scheme and the host, which HTTP/2 writes before it, nor the query."""
    with everywhere(short_dir) as port, running_proxy(short_dir, SERF_HAPROXY_BALANCE="uri") as proxy:
        join(proxy, port, *range(1, 9))
        paths = [f"/{number}" for number in range(16)]
        found = ask_all(proxy, paths, [])
        for path in paths:
            url = f"http://{proxy.settings.frontend_bind}{path}?q"
            argv = ["curl", "-sv", "--http2-prior-knowledge", url]
            said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
            assert said.stdout == found[path], said.stderr
