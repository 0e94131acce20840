"""Requests that arrive while no server is up: they get 503 at once, or wait as long as the settings say."""

import concurrent.futures
import csv
import io
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
