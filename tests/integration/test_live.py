"""Changes without a reload: drain, grace, the first check of a new server, and the fallback to a reload."""

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import probe
from fakes.web import answering
from integration.agents import run_serf
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_daemon import running_daemon
from integration.test_load import APP, applications
from serf_haproxy.control import rendering
from serf_haproxy.control.edges import find_serf, make_edges
from serf_haproxy.control.outcome import Verdict, look_again_s
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.control.report import read_report
from serf_haproxy.haproxy.workers import measure
from serf_haproxy.serf.hints import Monitor
from serf_haproxy.serf.rpc import Connection
from serf_haproxy.serf.wake import wake
from serf_haproxy.show.document import to_json


def frontend(proxy: Proxy) -> str:
    return f"http://{proxy.settings.frontend_bind}/"


def seen(proxy: Proxy) -> dict[str, tuple[str, int]]:
    """Return endpoint and weight of every server that is not in maintenance."""
    running = probe.read_running(proxy.settings)
    assert running is not None
    servers = running.servers or {}
    return {key[1]: (each.endpoint, each.weight) for key, each in servers.items() if not each.is_maintained}


def seen_beside(proxy: Proxy) -> dict[str, tuple[str, int]]:
    """Return the same without web0."""
    return {name: server for name, server in seen(proxy).items() if name != "web0"}


def statuses(proxy: Proxy) -> dict[str, str]:
    """Return HAProxy's state of each server."""
    return {name: view.status for name, view in (probe.read_servers(proxy.settings) or {}).items()}


def ask_who(proxy: Proxy, client: requests.Session | None = None) -> str:
    """Make one request on a new connection, as this client or a new one; return the server's address."""
    response = (client or requests).get(frontend(proxy), timeout=5, headers={"Connection": "close"})
    response.raise_for_status()
    return response.headers["X-Backend-IP"]


@contextlib.contextmanager
def slow_request(proxy: Proxy, address: str, port: int, delay_ms: int) -> Iterator[list[int]]:
    """Run a request of delay_ms during a block; yield the list to which its status code is appended."""
    order = {"delay": delay_ms, "checks": False}
    requests.post(f"http://{address}:{port}/delay", json=order, timeout=10).raise_for_status()
    answers: list[int] = []
    client = threading.Thread(target=lambda: answers.append(requests.get(frontend(proxy), timeout=30).status_code))
    client.start()
    wait_for(lambda: any(each.connection_count for each in probe.read_running(proxy.settings).servers.values()), "it")
    try:
        yield answers
    finally:
        client.join(30)


class Held(http.server.ThreadingHTTPServer):
    """A web application that is healthy at once and answers when released, and the answers that a client got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.1.1", 0), HeldAnswer)
        self.host, self.port = "127.0.1.1", self.server_port
        self.is_released = threading.Event()
        self.answers: list[int] = []


class HeldAnswer(http.server.BaseHTTPRequestHandler):
    """The handler of one request to `Held`."""

    server: Held

    def do_HEAD(self) -> None:
        """Answer a health check."""
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        """Answer when released."""
        self.server.is_released.wait(60)
        self.do_HEAD()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def held_request(proxy: Proxy) -> Iterator[Held]:
    """Keep a request to web1 in flight for the duration of a block, in which web0 can serve as well."""
    with Held() as held, answering() as other:
        threading.Thread(target=held.serve_forever).start()
        client = threading.Thread(
            target=lambda: held.answers.append(requests.get(frontend(proxy), timeout=60).status_code)
        )
        try:
            proxy.record("web1", held.port, held.host)
            proxy.run_pass()
            wait_for(lambda: statuses(proxy) == {"web1": "UP"}, "web1 is up")
            client.start()
            wait_for(
                lambda: any(each.connection_count for each in probe.read_running(proxy.settings).servers.values()),
                "the request is in flight",
            )
            proxy.record("web0", other.port)
            proxy.run_pass()
            wait_for(lambda: statuses(proxy) == {"web0": "UP", "web1": "UP"}, "web0 is up")
            yield held
        finally:
            held.is_released.set()
            if client.ident:
                client.join(30)
            held.shutdown()


def test_a_drain_finishes_a_request_of_five_seconds(proxy: Proxy) -> None:
    """A node that leaves gets no new requests, finishes the running one, and is removed after it."""
    with applications(2) as ports, running_daemon(proxy):
        (first, first_port), (second, second_port) = ports.items()
        proxy.record("web1", first_port, first)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: requests.get(frontend(proxy), timeout=5).ok, "web1 is served")
        with slow_request(proxy, first, first_port, 5000) as answers:
            proxy.record("web1", first_port, first, status="left")
            proxy.record("web2", second_port, second)
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: seen(proxy).get("web1") == (f"{first}:{first_port}", 0), "web1 drains")
            wait_for(lambda: requests.get(frontend(proxy), timeout=5).ok, "web2 is served")
            assert answers == []
        assert answers == [200]
        wait_for(lambda: seen(proxy).keys() == {"web2"}, "web1 is removed")
        wait_for(lambda: "server web1" not in Path(proxy.settings.config_path).read_text(), "web1 is not in the file")
    assert proxy.reload_count() == 0


def test_a_drain_survives_the_daemon_and_is_cancelled_by_a_rejoin(proxy: Proxy) -> None:
    """After the daemon was killed during a drain, the next one continues the drain; a rejoin cancels it."""
    with held_request(proxy) as held:
        with running_daemon(proxy) as process:
            proxy.record("web1", held.port, held.host, status="left")
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: seen_beside(proxy)["web1"][1] == 0, "web1 drains")
            process.kill()
            process.wait(30)
        last_pass = Path(proxy.settings.state_dir, "last_pass.json")
        last_pass.unlink()  # `running_daemon` waits for a new one
        with running_daemon(proxy):
            assert seen_beside(proxy) == {"web1": (f"{held.host}:{held.port}", 0)}
            assert held.answers == []
            proxy.record("web1", held.port, held.host)
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: seen_beside(proxy)["web1"][1] == 1, "the drain is cancelled")
            assert held.answers == []
    assert held.answers == [200]
    assert seen_beside(proxy).keys() == {"web1"}


def test_a_sticky_client_finishes_its_session_at_a_server_that_left(short_dir: Path) -> None:
    """A client with a cookie stays at its draining server, also after a reload; others use another server."""
    environment = {"SERF_HAPROXY_COOKIE": "SRV", "SERF_HAPROXY_DRAIN_TIMEOUT_S": "600"}
    with running_proxy(short_dir, **environment) as proxy, applications(2) as ports:
        places = dict(zip(("web1", "web2"), ports.items(), strict=True))
        for name, (address, port) in places.items():
            proxy.record(name, port, address)
        proxy.record("dead", free_port("127.0.1.8"), "127.0.1.8")
        proxy.run_pass()
        wait_for(
            lambda: statuses(proxy) == {"web1": "UP", "web2": "UP", "dead": "DOWN"}, "two servers are up, one is down"
        )
        client = requests.Session()
        wait_for(lambda: ask_who(proxy, client) == places["web1"][0] or client.cookies.clear(), "a client of web1")

        def leave(name: str) -> None:
            address, port = places.get(name, ("127.0.1.8", 9))
            proxy.record(name, port, address, status="left")

        leave("web1")
        leave("dead")
        assert proxy.run_pass().verdict is Verdict.APPLIED
        for balance, verdict in (("roundrobin", Verdict.UNCHANGED), ("leastconn", Verdict.RELOADED)):
            assert proxy.run_pass(balance=balance).verdict is verdict
            assert seen(proxy).keys() == {"web1", "web2"}
            assert {ask_who(proxy, client) for _ in range(5)} == {places["web1"][0]}
            assert {ask_who(proxy) for _ in range(10)} == {places["web2"][0]}
        proxy.run_pass(balance="leastconn", drain_timeout_s=0.0)
        assert seen(proxy).keys() == {"web2"}
        assert {ask_who(proxy, client) for _ in range(5)} == {places["web2"][0]}


def test_a_reload_in_the_middle_of_a_drain_cuts_no_request(proxy: Proxy) -> None:
    """The old worker finishes its request, although the new one has no connection to that server."""
    with held_request(proxy) as held:
        proxy.record("web1", held.port, held.host, status="left")
        proxy.run_pass()
        assert seen_beside(proxy) == {"web1": (f"{held.host}:{held.port}", 0)}
        assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
        proxy.run_pass(balance="leastconn")
        assert proxy.servers() == {"web0"}
        assert held.answers == []
    assert held.answers == [200]


def test_a_drain_ends_after_its_time(proxy: Proxy) -> None:
    """After the drain timeout a server gets no requests, and a connection that is still open is not cut."""
    with held_request(proxy) as held:
        with running_daemon(proxy, SERF_HAPROXY_DRAIN_TIMEOUT_S="1"):
            proxy.record("web1", held.port, held.host, status="left")
            wake(proxy.settings.wake_fifo)
            wait_for(lambda: "web1" not in seen_beside(proxy), "web1 gets no requests")
        assert held.answers == []
    assert held.answers == [200]


def test_a_tag_drains_a_node(proxy: Proxy) -> None:
    """drain=true sets a node's weight to 0 without removing it; drain=false restores the weight."""
    proxy.record("web1", 8001, drain="true", weight=5)
    assert proxy.run_pass().verdict is Verdict.APPLIED
    assert seen(proxy) == {"web1": ("127.0.0.1:8001", 0)}
    proxy.record("web1", 8001, drain="false", weight=5)
    proxy.run_pass()
    assert seen(proxy) == {"web1": ("127.0.0.1:8001", 5)}


@pytest.mark.parametrize(
    "environment",
    [{"SERF_HAPROXY_BALANCE": "static-rr"}, {"SERF_HAPROXY_COOKIE": "SRV"}],
    ids=lambda environment: "=".join(*environment.items()),
)
def test_a_drain_that_ends_in_a_reload_restores_the_weight(short_dir: Path, environment: dict[str, str]) -> None:
    """A drained server gets its weight back, also when a new node in the same pass needs a reload."""
    with running_proxy(short_dir, **environment) as proxy:
        proxy.record("web1", 8001)
        proxy.run_pass()
        proxy.record("web1", 8001, drain="true")
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert seen(proxy) == {"web1": ("127.0.0.1:8001", 0)}
        proxy.record("web1", 8001, drain="false")
        proxy.record("web2", 8002)
        proxy.run_pass()
        assert seen(proxy) == {"web1": ("127.0.0.1:8001", 1), "web2": ("127.0.0.1:8002", 1)}
        assert proxy.run_pass().verdict is Verdict.UNCHANGED


def test_a_failed_node_stays_for_its_grace(proxy: Proxy) -> None:
    """A failed node stays for its grace; if it returns within it, nothing changes, otherwise it is removed."""
    proxy.record("web0", 8000)  # otherwise the guard would hold the only server
    proxy.record("web1", 8001)
    proxy.run_pass()
    proxy.record("web1", 8001, status="failed")
    outcome = proxy.run_pass(failed_grace_s=600.0)
    assert outcome.verdict is Verdict.UNCHANGED
    assert 0 < outcome.again_s <= 600
    proxy.record("web1", 8001)
    outcome = proxy.run_pass(failed_grace_s=600.0)
    assert (outcome.verdict, outcome.again_s) == (Verdict.UNCHANGED, None)
    assert seen(proxy).keys() == {"web0", "web1"}
    with running_daemon(proxy, SERF_HAPROXY_FAILED_GRACE_S="1"):
        proxy.record("web1", 8001, status="failed")
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: seen(proxy).keys() == {"web0"}, "it is removed after the grace")


@pytest.mark.parametrize("by_reload", [False, True], ids=["at run time", "by reload"])
def test_a_new_server_gets_no_request_before_it_can_answer(proxy: Proxy, by_reload: bool) -> None:
    """A new server gets no requests until its health check succeeds, however it was added."""
    late = free_port("127.0.1.9")
    with applications(1) as ports:
        ((address, port),) = ports.items()
        proxy.record("web1", port, address)
        proxy.run_pass()
        wait_for(lambda: requests.get(frontend(proxy), timeout=5).ok, "web1 is served")
        with socket.create_server(("127.0.1.9", late)) as listening:
            # It accepts and never answers: a request sent there would hang.
            listening.settimeout(0.01)
            proxy.record("late", late, "127.0.1.9")
            outcome = proxy.run_pass(balance="leastconn" if by_reload else "roundrobin")
            assert outcome.verdict is (Verdict.RELOADED if by_reload else Verdict.APPLIED)
            for _ in range(60):
                assert requests.get(frontend(proxy), timeout=10).headers["X-Backend-IP"] == address
        environment = os.environ | {"APP_HOST": "127.0.1.9", "APP_PORT": str(late)}
        application = subprocess.Popen([sys.executable, APP], env=environment)
        try:
            wait_for(
                lambda: requests.get(frontend(proxy), timeout=5).headers["X-Backend-IP"] == "127.0.1.9", "it is served"
            )
        finally:
            application.terminate()
            application.wait(20)


def test_a_reload_keeps_the_states_of_the_servers(proxy: Proxy) -> None:
    """After a reload, servers that were down get no requests, servers that were up do, and moved ones have moved."""
    with applications(2) as ports:
        (first, first_port), (second, second_port) = ports.items()
        proxy.record("dead", free_port("127.0.1.8"), "127.0.1.8")
        proxy.record("web1", first_port, first)
        proxy.record("web2", 9, second)
        proxy.run_pass()
        wait_for(lambda: requests.get(frontend(proxy), timeout=5).ok, "web1 is served")
        proxy.record("web2", second_port, second)
        assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
        views = probe.read_servers(proxy.settings) or {}
        assert views["dead"].status.startswith("DOWN")
        assert views["web1"].status == "UP"
        assert views["web2"].address == f"{second}:{second_port}"
        assert Path(proxy.settings.server_state_path).read_text() == "1\n"


@pytest.mark.parametrize(
    "environment",
    [
        {"SERF_HAPROXY_BALANCE": "static-rr"},
        {"SERF_HAPROXY_COOKIE": "SRV"},
    ],
    ids=lambda environment: "=".join(*environment.items()),
)
def test_changes_refused_at_run_time_cause_a_reload(short_dir: Path, environment: dict[str, str]) -> None:
    """When HAProxy refuses a server at run time because of its algorithm or keyword, one reload adds it."""
    with running_proxy(short_dir, **environment) as proxy:
        proxy.record("web1", 8001)
        outcome = proxy.run_pass()
        assert outcome.verdict in (Verdict.RELOADED, Verdict.APPLIED)
        assert probe.runs_published(proxy.settings)
        assert seen(proxy).keys() == {"web1"}
        if "SERF_HAPROXY_BALANCE" in environment:
            assert outcome.verdict is Verdict.RELOADED


def test_without_a_runtime_socket_changes_cause_a_reload(short_dir: Path) -> None:
    """With a template without a runtime socket, the master socket is enough to reload and confirm."""
    template = short_dir / "own.j2"
    lines = Path(rendering.BUILT_IN_TEMPLATE).read_text().splitlines(keepends=True)
    template.write_text("".join(line for line in lines if "stats socket" not in line))
    with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy:
        proxy.record("web1", 8001)
        assert proxy.run_pass().verdict is Verdict.RELOADED
        assert set(probe.read_servers(proxy.settings) or {}) == {"web1"}
        assert proxy.run_pass().verdict is Verdict.UNCHANGED


@pytest.mark.parametrize("is_hanging", [False, True], ids=["no runtime socket", "a runtime socket that hangs"])
def test_a_reload_without_a_runtime_socket_keeps_the_states_of_the_servers(short_dir: Path, is_hanging: bool) -> None:
    """The servers' states are read from the master: down stays down, a new server waits for its first check."""
    template, deaf = short_dir / "own.j2", short_dir / "deaf.sock"
    template.write_text("".join(line for line in _template_lines() if "stats socket" not in line))
    with (
        running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy,
        applications(1) as ports,
        socket.create_server(("127.0.1.9", 0)) as silent,  # accepts only: a request sent there would hang
        socket.socket(socket.AF_UNIX) as listening,
    ):
        ((address, port),) = ports.items()
        proxy.record("dead", free_port("127.0.1.8"), "127.0.1.8")
        proxy.record("web1", port, address)
        assert proxy.run_pass().verdict is Verdict.RELOADED
        wait_for(lambda: statuses(proxy) == {"dead": "DOWN", "web1": "UP"}, "dead is down")
        proxy.record("late", silent.getsockname()[1], "127.0.1.9")
        listening.bind(str(deaf))
        listening.listen(50)
        started_s = time.monotonic()
        outcome = proxy.run_pass(**({"runtime_socket": str(deaf)} if is_hanging else {}))
        assert (outcome.verdict, outcome.reason) == (Verdict.RELOADED, "servers changed: +late")
        assert time.monotonic() - started_s < 40  # a few times the socket's time limit
        assert statuses(proxy) == {"dead": "DOWN", "late": "DOWN", "web1": "UP"}
        for _ in range(30):
            assert requests.get(frontend(proxy), timeout=10).headers["X-Backend-IP"] == address
        assert proxy.run_pass().verdict is Verdict.UNCHANGED


def test_a_server_with_a_connection_is_deleted_after_it(proxy: Proxy) -> None:
    """A server that cannot be deleted yet is set to maintenance and deleted by a later pass."""
    with held_request(proxy) as held:
        Path(proxy.settings.nodes_dir, "web1").unlink()
        outcome = proxy.run_pass()
        assert outcome.verdict is Verdict.APPLIED
        assert outcome.again_s is not None
        assert proxy.servers() == {"web0", "web1"}
        assert seen_beside(proxy) == {}
        held.is_released.set()
        wait_for(lambda: held.answers == [200], "the request is answered")
        wait_for(
            lambda: proxy.run_pass().verdict is Verdict.UNCHANGED and proxy.servers() == {"web0"}, "web1 is deleted"
        )


def test_a_lasting_connection_is_checked_less_and_less_often(proxy: Proxy) -> None:
    """While a server in drain or maintenance waits long for its last connection, passes become rarer."""
    with held_request(proxy) as held:
        proxy.record("web1", held.port, held.host, status="left")
        for drain_timeout_s in (600.0, 0.0):
            outcome = proxy.run_pass(drain_timeout_s=drain_timeout_s)
            assert (outcome.verdict, outcome.again_s) == (Verdict.APPLIED, look_again_s(0))
            wait_for(lambda: proxy.run_pass(drain_timeout_s=drain_timeout_s).again_s > look_again_s(0), "rarer looks")  # noqa: B023
        assert proxy.servers() == {"web0", "web1"}
    assert held.answers == [200]


def test_a_rejoin_before_the_last_connection_has_ended_needs_no_reload(proxy: Proxy) -> None:
    """A node that rejoins while its server waits for its last connection is used again at once."""
    with held_request(proxy) as held:
        Path(proxy.settings.nodes_dir, "web1").unlink()
        proxy.run_pass()
        proxy.record("web1", held.port, held.host)
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert seen_beside(proxy) == {"web1": (f"{held.host}:{held.port}", 1)}
        held.is_released.set()
        wait_for(lambda: held.answers == [200], "the request is answered")
        wait_for(lambda: requests.get(frontend(proxy), timeout=5).ok, "web1 is served again")
    assert proxy.reload_count() == 0


@pytest.mark.parametrize("is_limited", [True, False])
def test_old_workers_are_limited_or_reported(proxy: Proxy, short_dir: Path, is_limited: bool) -> None:
    """HAProxy ends old workers beyond the limit; if the template sets no limit, the pass reports them."""
    own = short_dir / "own.j2"
    own.write_text("".join(line for line in _template_lines() if is_limited or "mworker-max" not in line))
    host, _, port = proxy.settings.frontend_bind.rpartition(":")
    with contextlib.ExitStack() as connections:
        for number in range(4):
            connection = connections.enter_context(socket.create_connection((host, int(port)), 5))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")  # incomplete: the worker waits for the rest
            own.write_text(f"{own.read_text().rstrip()}\n# {number}\n")
            balance = ("leastconn", "roundrobin")[number % 2]
            outcome = proxy.run_pass(template_path=str(own), balance=balance, old_workers_max=2)
            assert outcome.verdict is Verdict.RELOADED
        master = make_edges(proxy.settings).master
        wait_for(
            lambda: measure(master.read_account().old_pids).worker_count == (2 if is_limited else 4), "the old workers"
        )
        old = measure(master.read_account().old_pids)
        assert to_json(read_report(proxy.settings))["old_workers"]["worker_count"] == old.worker_count
    assert old.memory_bytes > old.worker_count * 1_000_000
    assert 0 < old.oldest_s < 60
    told = [problem for problem in outcome.problems if "mworker-max-reloads 2" in problem]
    assert bool(told) is not is_limited


def _template_lines() -> list[str]:
    return Path(rendering.BUILT_IN_TEMPLATE).read_text().splitlines(keepends=True)


def test_serf_hints_at_a_join_long_before_its_event(proxy: Proxy, short_dir: Path) -> None:
    """The Serf agent logs a join before it passes the event, which it holds back for a second."""
    host, port = proxy.settings.rpc_addr
    events = short_dir / "events"
    events.touch()
    handler = f"-event-handler=member-join=cut -f 1 >> {events}"
    was_early = []
    with run_serf("lb1", host, port, "role=balancer", options=(handler,)) as bind:
        monitor = Monitor(find_serf(proxy.settings))
        wait_for(monitor.read_hint, "the Serf agent's own join")
        for number in range(3):  # on a busy machine the event may come before the check
            name = f"web{number}"
            with run_serf(name, "127.0.1.1", free_port("127.0.1.1"), options=(f"-join={bind}",)):
                wait_for(monitor.read_hint, "the hint")
                was_early.append(name not in events.read_text().split())
                wait_for(lambda name=name: name in events.read_text().split(), "the event")
                wait_for(lambda: not monitor.read_hint(), "the last hint of the join")
            if was_early[-1]:
                break
        monitor.close()
    assert was_early[-1]


def test_serf_hints_at_a_leave_before_the_member_has_left(proxy: Proxy) -> None:
    """The first leave message is a hint, at which the roster says `leaving`; its repetitions are not."""
    host, port = proxy.settings.rpc_addr
    with run_serf("lb1", host, port, "role=balancer") as bind:
        monitor, connection = Monitor(find_serf(proxy.settings)), Connection(find_serf(proxy.settings))
        statuses = []
        for number in range(3):  # on a busy machine the leave may be complete before the check
            name, web_port = f"web{number}", free_port("127.0.1.1")
            with run_serf(name, "127.0.1.1", web_port, options=(f"-join={bind}",)):
                wait_for(lambda name=name: name in connection.read_roster().members, "the join")
                wait_for(lambda: not monitor.read_hint(), "the last hint of the join")
                with subprocess.Popen(["serf", "leave", f"-rpc-addr=127.0.1.1:{web_port}"], stdout=subprocess.DEVNULL):
                    wait_for(monitor.read_hint, "the hint", 5)
                    statuses.append(connection.read_roster().members[name][0])
        assert "leaving" in statuses
        connection.close()
        monitor.close()


@pytest.mark.parametrize("hints", ["on", "off"])
def test_a_member_is_served_with_and_without_hints(proxy: Proxy, hints: str) -> None:
    """Without a handler, the roster adds a member: at once with hints, at the next resync without."""
    host, port = proxy.settings.rpc_addr
    options = {"SERF_HAPROXY_HINTS": hints, "SERF_HAPROXY_RESYNC_INTERVAL_S": "60" if hints == "on" else "1"}
    with run_serf("lb1", host, port, "role=balancer") as bind, running_daemon(proxy, **options):
        joined = ("-retry-interval=1s", f"-retry-join={bind}")
        with run_serf("web1", "127.0.1.1", free_port("127.0.1.1"), "role=web", "port=8001", options=joined):
            wait_for(lambda: seen(proxy) == {"web1": ("127.0.1.1:8001", 1)}, "web1 is in HAProxy", 15)
    assert shutil.which("serf")


def test_a_server_whose_last_requests_have_ended_is_deleted_soon(proxy: Proxy) -> None:
    """Connections that became idle after a server was taken out do not keep it for the time that HAProxy keeps them."""
    host, port = proxy.settings.frontend_bind.split(":")
    passes = Reconciler(proxy.settings.replace(drain_timeout_s=0.0))
    with answering(delay_s=1) as web, answering(delay_s=1) as other, contextlib.ExitStack() as stack:
        proxy.record("web1", web.port)
        proxy.record("web2", other.port)
        passes.reconcile(lambda: None)
        proxy.wait_up("web1", "web2")
        clients = [stack.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(16)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: web.count + other.count == len(clients), "both are asked")
        proxy.record("web1", web.port, status="left")
        passes.reconcile(lambda: None)
        assert proxy.servers() == {"web1", "web2"}, "its requests are still under way"
        assert {client.recv(100)[:15] for client in clients} == {b"HTTP/1.1 200 OK"}
        began_s = time.monotonic()

        def is_deleted() -> bool:
            outcome = passes.reconcile(lambda: None)
            time.sleep(min(outcome.again_s or 0, 5))
            return proxy.servers() == {"web2"}

        wait_for(is_deleted, "it is deleted")
        assert time.monotonic() - began_s < 3
