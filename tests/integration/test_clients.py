"""What a client may claim, requests that go in a circle, and silent WebSockets, with the real HAProxy."""

import contextlib
import csv
import io
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from fakes.servers import at_once, serving_tcp
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.policy.server import Server
from serf_haproxy.serf.events import Member, make_member
from serf_haproxy.serf.nodes import forget
from serf_haproxy.serf.roster import Roster
from serf_haproxy.system.interfaces import list_local_addresses

FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "x-FORWARDED-for": "6.6.6.7",
    "X_Forwarded_For": "6.6.6.8",
    "X-Forwarded_For": "6.6.6.9",
    "X.Forwarded.For": "6.6.6.10",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Server": "evil",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded": "for=6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=https;host=evil.example",
    "X-Real-IP": "6.6.6.6",
    "X_Real_IP": "6.6.6.6",
    "X-Client-IP": "6.6.6.6",
    "X-Cluster-Client-IP": "6.6.6.6",
    "X-Original-Forwarded-For": "6.6.6.6",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "X-Host": "evil.example",
    "True-Client-IP": "6.6.6.6",
    "CF-Connecting-IP": "6.6.6.6",
    "Client-IP": "6.6.6.6",
    "Front-End-Https": "on",
    "X-Original-URI": "/evil",
    "X-Envoy-Original-Path": "/evil",
    "X-Script-Name": "/evil",
    "X-Request-URI": "/evil",
    "X-Real-Host": "evil.example",
    "X-Real-Scheme": "https",
    "X-Host-Override": "evil.example",
    "X-HTTP-Host-Override": "evil.example",
    "X-True-Client-IP": "6.6.6.6",
    "X-ClientIP": "6.6.6.6",
    "Fly-Client-IP": "6.6.6.6",
    "CF-Visitor": '{"scheme":"https"}',
    "CloudFront-Forwarded-Proto": "https",
    "X-ARR-SSL": "1",
    "WL-Proxy-SSL": "true",
    "Forwarded-For": "6.6.6.6",
    "Proxy": "http://evil.example",
    "SCRIPT_NAME": "/evil",
    "Script-Name": "/evil",
    "PATH_INFO": "/evil",
    "X-Proxied-Https": "on",
    "Proxy-Ssl-Id": "1",
    "Proxy-Auth-Cert": "1",
    "$WSRA": "6.6.6.6",
    "$WSSC": "https",
    "$WSSN": "evil.example",
    "X-Vercel-Forwarded-For": "6.6.6.6",
    "CF-Pseudo-IPv4": "6.6.6.6",
    "Ali-CDN-Real-IP": "6.6.6.6",
    "CDN-Src-IP": "6.6.6.6",
    "X-Envoy-Internal": "true",
    "Fastly-SSL": "1",
    "SSL-Offloaded": "1",
}
KEPT = {"X-Request-Id": "1", "X-Client-Version": "2", "Forwarded-To": "3", "Proxy-Hint": "4", "my_header": "5"}
OURS = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-port"}
UPGRADE = "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def echo(connection: socket.socket) -> None:
    """Answer each request with its own head, or become an echo of bytes after a WebSocket's handshake."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        if b"upgrade: websocket" in head.lower():
            connection.sendall(SWITCH)
            while more := connection.recv(65536):
                connection.sendall(more)
            return
        body = b"" if head.startswith(b"HEAD") else head
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def find_up(proxy: Proxy) -> set[str]:
    """Return the servers that are up."""
    return {name for name, row in (probe.read_servers(proxy.settings) or {}).items() if row.status == "UP"}


@contextlib.contextmanager
def serving_echo(directory: Path, **environment: str) -> Iterator[Proxy]:
    """Run a HAProxy with one server that shows each request as it arrives."""
    with serving_tcp(at_once(echo)) as (host, port), running_proxy(directory, **environment) as proxy:
        proxy.record("web1", port, host)
        proxy.run_pass()
        wait_for(lambda: find_up(proxy) == {"web1"}, "web1 is up")
        yield proxy


@pytest.fixture(scope="module")
def replacing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield a HAProxy with the default settings."""
    with serving_echo(tmp_path_factory.mktemp("r")) as proxy:
        yield proxy


def send(proxy: Proxy, raw: str) -> str:
    """Send a raw request; return the whole answer."""
    host, _, port = proxy.settings.frontend_bind.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(raw.encode())
        answer = b""
        while more := connection.recv(65536):
            answer += more
            length = re.search(rb"content-length: (\d+)", answer.lower())
            if length and len(answer.partition(b"\r\n\r\n")[2]) >= int(length[1]):
                break
        return answer.decode()


def show(proxy: Proxy, headers: dict[str, str], more: str = "") -> dict[str, list[str]]:
    """Send a request with these headers; return those that the application saw, in lower case."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = send(proxy, f"GET / HTTP/1.1\r\nHost: shop.example\r\n{lines}{more}\r\n")
    assert answer.startswith("HTTP/1.1 200"), answer
    seen: dict[str, list[str]] = {}
    for line in answer.partition("\r\n\r\n")[2].split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        seen.setdefault(name.lower(), []).append(value)
    return seen


def reload(proxy: Proxy) -> None:
    """Have the master load the live file, once it listens."""
    proxy.reload_count()
    assert make_edges(proxy.settings).master.reload() is None


def port_of(proxy: Proxy) -> str:
    return proxy.settings.frontend_bind.rpartition(":")[2]


def find_forged(seen: dict[str, list[str]]) -> set[str]:
    """Return the forged headers that the application saw, but for those that the balancer sets."""
    return seen.keys() & {name.lower() for name in FORGED} - OURS


def test_what_a_client_says_of_itself_is_replaced(replacing: Proxy) -> None:
    """The application sees the client's own address, scheme and port, and nothing that the client made up."""
    seen = show(replacing, FORGED | KEPT)
    assert find_forged(seen) == set()
    assert seen["x-forwarded-for"] == ["127.0.0.1"]
    assert seen["x-forwarded-proto"] == ["http"]
    assert seen["x-forwarded-port"] == [port_of(replacing)]
    assert seen["host"] == ["shop.example"]
    assert {name: seen[name.lower()] for name in KEPT} == {name: [value] for name, value in KEPT.items()}


def test_a_repeated_header_is_replaced_too(replacing: Proxy) -> None:
    """However often a client repeats a header, the application sees one value."""
    more = "X-Forwarded-For: 6.6.6.6\r\n" * 30 + "Forwarded: for=6.6.6.6\r\n" * 30
    seen = show(replacing, {}, more)
    assert seen["x-forwarded-for"] == ["127.0.0.1"]
    assert "forwarded" not in seen


@pytest.mark.parametrize("connection", ["X-Forwarded-For", "close, X-Forwarded-For", "keep-alive, X-Forwarded-Proto"])
def test_a_client_cannot_have_our_headers_dropped(replacing: Proxy, connection: str) -> None:
    """The header Connection names no header that the application's own proxy would drop."""
    seen = show(replacing, {"Connection": connection})
    assert seen["x-forwarded-for"] == ["127.0.0.1"]
    assert not any("forwarded" in value.lower() for value in seen.get("connection", []))


@pytest.mark.parametrize("protocol", ["h2c", "H2C", "foo, h2c", "h2c, foo", "h2", "HTTP/2.0"])
def test_no_other_protocol_is_tunnelled(replacing: Proxy, protocol: str) -> None:
    """An upgrade to HTTP/2 in clear text is not passed on."""
    settings = {"HTTP2-Settings": "AAMAAABkAAQAAP__", "http2_settings": "AAMAAABkAAQAAP__"}
    seen = show(replacing, {"Upgrade": protocol, "Connection": "Upgrade, HTTP2-Settings"} | settings)
    assert not seen.keys() & {"http2-settings", "http2_settings"}
    # HAProxy 3 removes the word itself and leaves the others.
    assert seen.get("upgrade", []) in ([], ["foo"])
    assert seen.get("connection", []) == (["upgrade"] if "upgrade" in seen else [])


def test_http_2_with_prior_knowledge_obeys_the_same_rules(replacing: Proxy) -> None:
    """A request in HTTP/2 without an upgrade cannot forge anything either."""

    def field(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    block = b"\x82\x84\x86" + field(b":authority", b"shop.example") + field(b"x-forwarded-for", b"6.6.6.6")
    block += field(b"x_forwarded_for", b"6.6.6.6")
    frames = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    frames += len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + block
    host, _, port = replacing.settings.frontend_bind.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
        answer = b""
        while b"x-forwarded-port" not in answer:
            more = connection.recv(65536)
            assert more, answer
            answer += more
    assert b"x-forwarded-for: 127.0.0.1" in answer
    assert b"6.6.6.6" not in answer


def test_a_trusted_proxy_is_believed(tmp_path: Path) -> None:
    """With `append` a trusted proxy's word is passed on, with its own address behind it; another client's is not."""
    environment = {"SERF_HAPROXY_FORWARDED_FOR": "append", "SERF_HAPROXY_TRUSTED_PROXIES": "10.0.0.0/8,127.0.0.1"}
    with serving_echo(tmp_path, **environment) as proxy:
        seen = show(proxy, {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "Forwarded": "for=192.0.2.1"})
        assert ", ".join(seen["x-forwarded-for"]) == "192.0.2.1, 127.0.0.1"
        assert seen["x-forwarded-proto"] == ["https"]
        assert seen["forwarded"] == ["for=192.0.2.1"]
        assert seen["x-forwarded-port"] == [port_of(proxy)]
        proxy.run_pass(forwarded_for="append", trusted_proxies=proxy.settings.trusted_proxies[:1])
        seen = show(proxy, FORGED)
        assert find_forged(seen) == set()
        assert seen["x-forwarded-for"] == ["127.0.0.1"]
        assert seen["x-forwarded-proto"] == ["http"]
        proxy.run_pass(forwarded_for="off")
        assert not show(proxy, FORGED).keys() & {name.lower() for name in FORGED}


@contextlib.contextmanager
def open_websocket(proxy: Proxy) -> Iterator[socket.socket]:
    """Yield a connection to the application after a WebSocket's handshake."""
    host, _, port = proxy.settings.frontend_bind.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n{UPGRADE}\r\n".encode())
        assert b" 101 " in connection.recv(65536)
        yield connection


def test_a_silent_websocket_lives_longer_than_a_request(tmp_path: Path) -> None:
    """A tunnel may be silent for `tunnel_timeout_s`, however short the time limits of a request are."""
    with serving_echo(tmp_path, SERF_HAPROXY_TUNNEL_TIMEOUT_S="3") as proxy:
        live = probe.read_live(proxy.settings) or ""
        short = live.replace("timeout client 60s", "timeout client 1s").replace(
            "timeout server 60s", "timeout server 1s"
        )
        assert short != live
        Path(proxy.settings.config_path).write_text(short)
        reload(proxy)
        wait_for(lambda: proxy.reload_count() >= 1, "the reload")
        time.sleep(0.5)
        with open_websocket(proxy) as connection:
            time.sleep(1.8)
            connection.sendall(b"still here")
            assert connection.recv(100) == b"still here"
            began_s = time.monotonic()
            assert connection.recv(100) == b"", "the balancer closes it in the end"
            assert 2 < time.monotonic() - began_s < 8


def read_frontend(proxy: Proxy) -> dict[str, str]:
    """Return the row of the frontend in HAProxy's statistics."""
    answer = ask(proxy.settings.runtime_socket, "show stat web 1 -1", 5)
    return next(iter(csv.DictReader(io.StringIO(answer.removeprefix("# ")))))


def test_a_request_in_a_circle_is_refused_and_counted(tmp_path: Path) -> None:
    """Twenty servers that lead back to the balancer by ways it cannot know are down, and each circle ends at once."""
    with serving_tcp(at_once(echo)) as (host, port), running_proxy(tmp_path) as proxy:
        own_host, _, own_port = proxy.settings.frontend_bind.rpartition(":")
        circles = [Server(f"circle{number}", own_host, int(own_port), None) for number in range(20)]
        text = probe.render(proxy.settings, (*circles, Server("web1", host, port, None))).text
        Path(proxy.settings.config_path).write_text(text)
        reload(proxy)
        wait_for(lambda: len(proxy.servers()) == 21 and find_up(proxy) == {"web1"}, "only web1 is up")
        wait_for(lambda: int(read_frontend(proxy)["dreq"]) >= 20, "health checks that come back are counted")
        before = read_frontend(proxy)
        for _ in range(20):
            assert show(proxy, {})["cdn-loop"] == [proxy.settings.loop_token]
        after = read_frontend(proxy)
        refused = int(after["dreq"]) - int(before["dreq"])
        assert int(after["req_tot"]) - int(before["req_tot"]) - refused == 20, "each request came once"
        probe.change(proxy.settings, [f"set server nodes/circle{number} health up" for number in range(20)])
        answers = [send(proxy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")[:12] for _ in range(20)]
        assert "HTTP/1.1 508" in answers
        last = read_frontend(proxy)
        refused = int(last["dreq"]) - int(after["dreq"])
        assert int(last["req_tot"]) - int(after["req_tot"]) - refused == 20, "none went round twice"


def test_another_proxys_mark_is_kept(replacing: Proxy) -> None:
    """A request that has passed other proxies goes on, with their marks and ours."""
    token = replacing.settings.loop_token
    again = send(replacing, f"GET / HTTP/1.1\r\nHost: a\r\nCDN-Loop: foo, {token}; a=b\r\nConnection: close\r\n\r\n")
    assert again.startswith("HTTP/1.1 508 ")
    assert show(replacing, {"CDN-Loop": "cdn.example"})["cdn-loop"] == ["cdn.example", replacing.settings.loop_token]


@pytest.fixture
def open_proxy(short_dir: Path) -> Iterator[Proxy]:
    """Yield a HAProxy whose frontend listens at all addresses of the machine."""
    with running_proxy(short_dir, SERF_HAPROXY_FRONTEND_BIND=f":{free_port('')}") as running:
        yield running


@pytest.mark.parametrize("status", ["alive", "leaving", "left", "failed", "absent"])
def test_the_own_address_is_remembered(open_proxy: Proxy, status: str) -> None:
    """Whatever Serf says of the balancer's own node, no member can be at its frontend, and none on loopback."""
    port = port_of(open_proxy)
    own = make_member("lb1", "192.0.2.7", {"role": "balancer"})

    def run(**members: tuple[str, Member]) -> str:
        time.sleep(0.01)  # file times have a resolution of 4 ms
        roster = Roster(time.time_ns(), "lb1", members)
        return "\n".join(reconcile(open_proxy.settings, lambda: roster).problems)

    assert run(lb1=("alive", own)) == ""
    others = {
        "circle": ("alive", make_member("circle", "192.0.2.7", {"port": port})),
        "local": ("alive", make_member("local", "127.0.0.1", {"port": "22"})),
        "web1": ("alive", make_member("web1", "192.0.2.8", {"port": port})),
    }
    listed = others if status == "absent" else others | {"lb1": (status, own)}
    for _ in range(2):
        problems = run(**listed)
        assert f"node circle is quarantined: a balancer listens at address 192.0.2.7 port {port}" in problems
        assert "node local is quarantined: address 127.0.0.1 is on the balancer's own machine" in problems
        assert open_proxy.servers() == {"web1"}
        if status == "absent":
            forget(open_proxy.settings.nodes_dir, "lb1")


def test_no_address_of_the_machine_leads_to_the_frontend(open_proxy: Proxy) -> None:
    """A member at any address of the machine, known to Serf or not, cannot be where the balancer listens."""
    local = sorted(list_local_addresses() | {"127.0.0.1", "127.8.9.10"})
    for number, address in enumerate(address for address in local if not address.startswith("fe80")):
        open_proxy.record(f"circle{number}", int(port_of(open_proxy)), address)
    open_proxy.record("web1", 8001)
    outcome = open_proxy.run_pass()
    assert open_proxy.servers() == {"web1"}
    assert len(outcome.problems) >= 2
    assert all("requests would go in a circle" in problem for problem in outcome.problems), outcome.problems
