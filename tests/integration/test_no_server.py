"""Requests that arrive while no server is up: they get 503 at once, or wait as long as the settings say."""

import concurrent.futures
import contextlib
import csv
import io
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from fakes.web import Web, answering
from integration.proxy import Proxy, running_proxy, wait_for
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.haproxy.socket import ask as ask_haproxy

COUNT = 20


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Proxy]:
    """Yield a HAProxy whose requests wait for up to 6 s."""
    with running_proxy(tmp_path, SERF_HAPROXY_NO_SERVER_WAIT_S="6", SERF_HAPROXY_RELOAD_INTERVAL_S="0") as proxy:
        yield proxy


def ask(proxy: Proxy) -> tuple[int, float]:
    """Send a request on a connection of its own; return the status and how long it took, seconds."""
    began_s = time.monotonic()
    url = f"http://{proxy.settings.frontend_bind}/"
    status = requests.get(url, headers={"Connection": "close"}, timeout=30).status_code
    return status, time.monotonic() - began_s


def send(proxy: Proxy) -> socket.socket:
    """Send a request; return the connection on which its answer will come."""
    host, port = proxy.settings.frontend_bind.split(":")
    connection = socket.create_connection((host, int(port)), 10)
    connection.settimeout(30)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def count_clients(proxy: Proxy) -> int:
    """Return how many clients the newest worker serves."""
    answer = ask_haproxy(proxy.settings.runtime_socket, "show stat web 1 -1", 5)
    return int(next(iter(csv.DictReader(io.StringIO(answer.removeprefix("# ")))))["scur"])


def join(proxy: Proxy, web: Web) -> None:
    """Let a web application join."""
    proxy.record("web1", web.port)
    assert proxy.run_pass().verdict in (Verdict.APPLIED, Verdict.RELOADED)


def test_without_the_setting_a_request_gets_503_at_once(proxy: Proxy) -> None:
    """No request waits where none is to wait."""
    status, took_s = ask(proxy)
    assert status == 503
    assert took_s < 1


def test_a_request_waits_for_a_server_and_no_longer(patient: Proxy) -> None:
    """Requests are answered soon after a server is up; one that finds none in time gets 503."""
    with concurrent.futures.ThreadPoolExecutor(COUNT) as clients, answering() as web:
        status, took_s = ask(patient)
        assert status == 503
        assert 5.5 < took_s < 9
        asked = [clients.submit(ask, patient) for _ in range(COUNT)]
        wait_for(lambda: count_clients(patient) == COUNT, "they wait")
        join(patient, web)
        assert [future.result()[0] for future in asked] == [200] * COUNT
        assert web.count == COUNT


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_that_goes_keeps_no_place(patient: Proxy, is_reset: bool) -> None:
    """A client that closes its connection while it waits is forgotten at once, not when the wait is over."""
    clients = [send(patient) for _ in range(COUNT)]
    wait_for(lambda: count_clients(patient) == COUNT, "they wait")
    began_s = time.monotonic()
    for client in clients:
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    wait_for(lambda: count_clients(patient) == 0, "they are forgotten")
    assert time.monotonic() - began_s < 3


def test_a_client_that_closes_only_its_sending_side_gets_its_answer(patient: Proxy) -> None:
    """What frees the places of clients that went while they waited ends no request that a server has."""
    with answering(delay_s=1) as web:
        join(patient, web)
        wait_for(lambda: ask(patient)[0] == 200, "it serves")
        with send(patient) as client:
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_waiting_clients_leave_room_for_others(tmp_path: Path) -> None:
    """At most three quarters of the client connections are of clients that wait; the next request gets 503 at once."""
    environment = {"SERF_HAPROXY_NO_SERVER_WAIT_S": "20", "SERF_HAPROXY_MAXCONN": "100"}
    with running_proxy(tmp_path, **environment) as proxy, contextlib.ExitStack() as stack:
        for _ in range(75):
            stack.enter_context(send(proxy))
        wait_for(lambda: count_clients(proxy) == 75, "they wait")
        for _ in range(3):
            status, took_s = ask(proxy)
            assert status == 503
            assert took_s < 3
        assert count_clients(proxy) == 75


def test_a_request_goes_on_waiting_after_a_reload(patient: Proxy) -> None:
    """A request that waits in an old worker is passed to the newest one as soon as there is one."""
    with concurrent.futures.ThreadPoolExecutor(COUNT) as clients, answering() as web:
        asked = [clients.submit(ask, patient) for _ in range(COUNT)]
        wait_for(lambda: count_clients(patient) == COUNT, "they wait")
        assert patient.run_pass(balance="leastconn").verdict is Verdict.RELOADED
        patient.record("web1", web.port)
        assert patient.run_pass(balance="leastconn").verdict is Verdict.APPLIED
        assert [future.result()[0] for future in asked] == [200] * COUNT
        assert web.count == COUNT
        assert ask(patient)[0] == 200
