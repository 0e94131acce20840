"""A reload that would meet a frozen worker waits for it, and no request is lost."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

import probe
from integration.load import Load, run_load
from integration.proxy import Proxy, running_proxy, wait_for
from integration.test_daemon import log_path, running_daemon, said
from integration.test_load import applications
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.outcome import FROZEN, Outcome, Verdict
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.control.report import read_report
from serf_haproxy.policy.snapshot import DOWN
from serf_haproxy.serf.wake import wake
from serf_haproxy.show.table import format_table

STATIC = {"SERF_HAPROXY_BALANCE": "static-rr"}  # HAProxy refuses new servers at run time


def find_worker(proxy: Proxy) -> int:
    """Return the process id of the newest worker."""
    assert proxy.process
    children = psutil.Process(proxy.process.pid).children()
    return max(children, key=lambda each: (each.create_time(), each.pid)).pid


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for the duration of a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def waiting_requests(proxy: Proxy, count: int) -> Iterator[list[object]]:
    """Begin requests that a frozen worker cannot accept; yield the list that gets their status codes or errors."""
    results: list[object] = []

    def ask() -> None:
        try:
            results.append(requests.get(f"http://{proxy.settings.frontend_bind}/", timeout=60).status_code)
        except requests.RequestException as error:
            results.append(error)

    clients = [threading.Thread(target=ask) for _ in range(count)]
    for client in clients:
        client.start()
    try:
        yield results
    finally:
        for client in clients:
            client.join(60)


def serve_two(proxy: Proxy, ports: dict[str, int]) -> None:
    for number, (address, port) in enumerate(ports.items(), 1):
        proxy.record(f"web{number}", port, address)
    assert proxy.run_pass().verdict in (Verdict.APPLIED, Verdict.RELOADED)
    wait_for(lambda: {view.status for view in (probe.read_servers(proxy.settings) or {}).values()} == {"UP"}, "UP")


def answers(proxy: Proxy) -> bool:
    with contextlib.suppress(requests.Timeout):
        return requests.get(f"http://{proxy.settings.frontend_bind}/", timeout=1).status_code == 200
    return False


def is_waiting(outcome: Outcome) -> bool:
    return outcome.verdict is Verdict.UNCONFIRMED and [one.name for one in outcome.conditions] == [FROZEN]


def test_a_reload_waits_for_a_frozen_worker(proxy: Proxy) -> None:
    """Requests that wait for a frozen worker are answered when it thaws, and the reload follows then."""
    with applications(2) as ports:
        serve_two(proxy, ports)
        before, live = proxy.reload_count(), probe.read_live(proxy.settings)
        with frozen(find_worker(proxy)), waiting_requests(proxy, 8) as results:
            assert is_waiting(proxy.run_pass(balance="leastconn"))
            assert (proxy.reload_count(), probe.read_live(proxy.settings), results) == (before, live, [])
            os.kill(find_worker(proxy), signal.SIGCONT)
        assert results == [200] * 8
        outcome = proxy.run_pass(balance="leastconn")
        assert (outcome.verdict, outcome.conditions) == (Verdict.RELOADED, ())


def test_a_worker_that_freezes_during_a_pass_is_not_reloaded_over(proxy: Proxy) -> None:
    """The worker is asked once more at the last moment before the reload."""
    settings = proxy.settings.replace(balance="leastconn")
    with applications(2) as ports:
        serve_two(proxy, ports)
        before, live, worker = proxy.reload_count(), probe.read_live(settings), find_worker(proxy)
        with contextlib.ExitStack() as stack:

            def freeze(step: str) -> None:
                if step == "published":
                    stack.enter_context(frozen(worker))

            outcome = reconcile(settings, lambda: None, on_step=freeze)
            assert is_waiting(outcome)
            assert (proxy.reload_count(), probe.read_live(settings)) == (before, live)
        assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED


@pytest.mark.usefixtures("migrating")
def test_where_the_kernel_migrates_connections_no_request_meets_a_closed_listener(proxy: Proxy) -> None:
    """A worker freezes in the middle of a reload: the next one cannot take its listeners, and they close when it thaws.

    Requests that waited there are answered by the next worker.
    """
    host, port = proxy.settings.frontend_bind.split(":")
    with applications(2) as ports:
        serve_two(proxy, ports)
        with run_load(Load(host, int(port), think_s=0.01), 8) as load:
            wait_for(lambda: load.ok_count > 50, "the load runs")
            with frozen(find_worker(proxy)):
                assert make_edges(proxy.settings).master.reload() is None
                time.sleep(1)  # clients of the frozen worker's listener wait
            since = load.ok_count
            wait_for(lambda: load.ok_count > since + 50, "all clients go on")
    assert load.failures == []


def test_a_worker_that_stays_frozen_is_replaced(proxy: Proxy) -> None:
    """When the longest wait is over, a new worker serves those new connections that the kernel gives to it."""
    with applications(2) as ports:
        serve_two(proxy, ports)
        with frozen(find_worker(proxy)):
            assert is_waiting(proxy.run_pass(frozen_worker_s=0.1))
            assert proxy.run_pass(frozen_worker_s=0.1).verdict is Verdict.RELOADED
            wait_for(lambda: answers(proxy), "the new worker answers")


def test_a_server_that_joins_while_the_worker_is_frozen_starts_as_down(proxy: Proxy) -> None:
    """A pass that waits makes no server known: in the worker that replaces the frozen one it is still new."""
    edges, told = make_edges(proxy.settings), []

    def look(step: str) -> None:
        if step == "reloaded":
            told.extend(line.split(" ") for line in Path(edges.config_file.state_path).read_text().splitlines()[1:])

    with applications(1) as ports:
        serve_two(proxy, ports)
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
        with frozen(find_worker(proxy)):
            proxy.record("web9", 8001)
            settings = proxy.settings.replace(frozen_worker_s=0.1)
            assert is_waiting(reconcile(settings, lambda: None))
            assert reconcile(settings, lambda: None, on_step=look).verdict is Verdict.RELOADED
    assert [(line[3], line[5]) for line in told] == [("web9", str(DOWN))]


def test_the_daemon_says_once_that_it_waits(short_dir: Path) -> None:
    """While the worker is frozen, one line of the log and `status` say so, and the reload follows later."""
    with running_proxy(short_dir, **STATIC, SERF_HAPROXY_QUIET_S="0") as proxy, running_daemon(proxy):
        before = proxy.reload_count()
        with frozen(find_worker(proxy)):
            proxy.record("web1", 8001)
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: said(proxy, "FROZEN"), log_path(proxy).read_text)
            first_s = probe.read_record(proxy.settings).at_s
            wait_for(lambda: probe.read_record(proxy.settings).at_s > first_s, "another pass")
            assert probe.read_record(proxy.settings).frozen_for_s(time.time()) > 1
            assert "frozen: HAProxy's worker does not answer" in format_table(read_report(proxy.settings))
            assert proxy.reload_count() == before
            words = log_path(proxy).read_text()
            assert (words.count("does not answer"), words.count("FROZEN")) == (1, 1)
        wait_for(lambda: proxy.servers() == {"web1"}, log_path(proxy).read_text)
        wait_for(lambda: "frozen" not in format_table(read_report(proxy.settings)), "the condition is over")
        assert proxy.reload_count() == before + 1


def test_a_hanging_runtime_socket_is_no_frozen_worker(proxy: Proxy) -> None:
    """A worker that answers through the master is reloaded, whatever listens in the place of its runtime socket."""
    os.unlink(proxy.settings.runtime_socket)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(proxy.settings.runtime_socket)
        listener.listen(0)
        assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
