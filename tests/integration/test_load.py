"""Changes of servers under load: no request fails."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import probe
from integration.load import Load, run_load
from integration.proxy import Proxy, free_port, wait_for
from serf_haproxy.control.outcome import Verdict

APP = Path(__file__).parents[2] / "images" / "webapp" / "app.py"
CHANGES = 20


@contextlib.contextmanager
def applications(count: int) -> Iterator[dict[str, int]]:
    """Run real web applications on 127.0.1.x for the length of the block; yield their ports by address."""
    ports = {f"127.0.1.{number}": free_port() for number in range(1, count + 1)}
    processes = [start_application(address, port) for address, port in ports.items()]
    try:
        for address, port in ports.items():
            wait_application(address, port)
        yield ports
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def start_application(address: str, port: int) -> subprocess.Popen[bytes]:
    """Start a real web application."""
    return subprocess.Popen([sys.executable, APP], env=os.environ | {"APP_HOST": address, "APP_PORT": str(port)})


def wait_application(address: str, port: int) -> None:
    """Wait until a web application is healthy."""
    wait_for(lambda: _answers(f"http://{address}:{port}/health"), f"the application on {address}")


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(url, timeout=5).ok
    return False


@pytest.mark.alone
@pytest.mark.parametrize(
    ("client_count", "keep_alive", "think_s"),
    [(16, False, 0.0), (200, True, 0.15)],
    ids=["new connections", "idle keep-alive clients"],
)
@pytest.mark.parametrize("by_reload", [True, False], ids=["by reload", "at run time"])
def test_twenty_changes_lose_no_request(
    proxy: Proxy,
    client_count: int,
    keep_alive: bool,
    think_s: float,
    by_reload: bool,
) -> None:
    """A server is added and removed twenty times while clients make requests: all are answered with 200."""
    host, _, port = proxy.settings.frontend_bind.rpartition(":")
    with applications(3) as ports:
        first, second, third = ports.items()
        proxy.record("web1", first[1], first[0])
        proxy.record("web2", second[1], second[0])
        proxy.run_pass()
        wait_for(lambda: {view.status for view in (probe.read_servers(proxy.settings) or {}).values()} == {"UP"}, "UP")
        before = proxy.reload_count()
        with run_load(Load(host, int(port), keep_alive, think_s), client_count) as seen:
            wait_for(lambda: seen.ok_count > 500, "the load runs")
            for number in range(CHANGES):
                proxy.record("web3", third[1], third[0], status="left" if number % 2 else "alive")
                # The runtime socket cannot change the algorithm.
                balance = ("leastconn", "roundrobin")[number % 2] if by_reload else "roundrobin"
                outcome = proxy.run_pass(balance=balance)
                assert outcome.verdict is (Verdict.RELOADED if by_reload else Verdict.APPLIED)
                since = seen.ok_count
                wait_for(lambda since=since: seen.ok_count > since + 200, "requests between two changes")
        assert proxy.reload_count() - before == (CHANGES if by_reload else 0)
        assert seen.failures == []
        assert set(seen.nodes) == set(ports)


def test_a_load_that_ends_by_itself_has_failed(proxy: Proxy) -> None:
    """A load that reaches its time limit reports a failure, because it measured nothing from then on."""
    host, _, port = proxy.settings.frontend_bind.rpartition(":")
    load = Load(host, int(port), think_s=0.05, limit_s=0.3)
    with run_load(load, 1):
        wait_for(lambda: "the load has reached its limit of 0.3 s" in load.failures, "the limit is reported")
