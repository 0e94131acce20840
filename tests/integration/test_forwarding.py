"""What each application is told of its clients, as its service says, with the real HAProxy."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.servers import at_once, serving_tcp
from integration.proxy import Proxy, running_proxy
from integration.test_clients import FORGED, OURS, echo, find_forged, port_of, send
from integration.test_services import offer, wait_up
from serf_haproxy.system.network import split_endpoint

pytestmark = pytest.mark.usefixtures("time_limit")

SERVICES = """\
[near]
routes = ["near.test"]
forwarded_for = "append"
trusted_proxies = ["127.0.0.0/8"]

[far]
routes = ["far.test"]
forwarded_for = "append"
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
redirect_https = true

[silent]
routes = ["silent.test"]
forwarded_for = "off"
"""
NAMES = ("nodes", "near", "far", "silent")
TOLD = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "Forwarded": "for=192.0.2.1"}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield a HAProxy with four services, all of one server that shows each request as it arrives."""
    directory: Path = tmp_path_factory.mktemp("f")
    (directory / "services.toml").write_text(SERVICES)
    with serving_tcp(at_once(echo)) as (_, port), running_proxy(directory) as proxy:
        offer(proxy, "web1", **dict.fromkeys(NAMES, port))
        proxy.run_pass()
        wait_up(proxy, *((name, "web1") for name in NAMES))
        yield proxy


def ask(proxy: Proxy, *services: str, headers: dict[str, str]) -> dict[str, list[str]]:
    """Send a request to each service, all on one connection; return what arrived at the last one."""
    host, port = split_endpoint(proxy.settings.frontend_bind)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = b""
    with socket.create_connection((host, int(port)), 10) as connection:
        for service in services:
            close = "Connection: close\r\n" if service == services[-1] else ""
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {service}.test\r\n{lines}{close}\r\n".encode())
        while more := connection.recv(65536):
            answer += more
    heads = answer.decode().split("GET / HTTP/1.1\r\n")
    assert len(heads) == len(services) + 1, answer
    seen: dict[str, list[str]] = {}
    for line in heads[-1].split("\r\n"):
        name, _, value = line.partition(": ")
        seen.setdefault(name.lower(), []).append(value)
    return seen


def test_a_service_believes_its_own_proxies(proxy: Proxy) -> None:
    """The word of a proxy that a service trusts is passed on to that service."""
    seen = ask(proxy, "near", headers=TOLD)
    assert ", ".join(seen["x-forwarded-for"]) == "192.0.2.1, 127.0.0.1"
    assert seen["x-forwarded-proto"] == ["https"]
    assert seen["x-forwarded-port"] == [port_of(proxy)]
    assert seen["forwarded"] == ["for=192.0.2.1"]


def test_a_proxy_of_another_service_is_not_believed(proxy: Proxy) -> None:
    """Where the client is no trusted proxy of this service, all that it says of itself is replaced."""
    seen = ask(proxy, "nodes", headers=FORGED)
    assert find_forged(seen) == set()
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == (["127.0.0.1"], ["http"])
    answer = send(proxy, "GET / HTTP/1.1\r\nHost: far.test\r\nX-Forwarded-Proto: https\r\n\r\n")
    assert answer.startswith("HTTP/1.1 308"), "its word that it came by HTTPS does not count"


def test_a_service_may_be_told_nothing(proxy: Proxy) -> None:
    """With `off` the application sees nothing that a client made up, and nothing of ours."""
    seen = ask(proxy, "silent", headers=FORGED)
    assert find_forged(seen) == set()
    assert not seen.keys() & OURS


@pytest.mark.parametrize("before", ["near", "silent"])
def test_one_request_does_not_decide_about_the_next(proxy: Proxy, before: str) -> None:
    """On one connection each request is treated as its own service says."""
    seen = ask(proxy, before, "nodes", headers=TOLD)
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == (["127.0.0.1"], ["http"])
    assert "forwarded" not in seen
