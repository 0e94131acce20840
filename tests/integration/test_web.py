"""Metrics, status and the page over HTTP: a process of its own, which no pass waits for."""

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

import probe
from fakes.web import answering
from integration.agents import run_serf
from integration.balancer import stopped
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_daemon import log_path, running_daemon
from integration.test_orders import run
from serf_haproxy.serf.wake import wake
from serf_haproxy.show.doctor import examine

BIND = "SERF_HAPROXY_WEB_BIND"


class Answer(NamedTuple):
    """An answer: status code, headers and body."""

    status: int
    headers: http.client.HTTPMessage
    body: str


class Web:
    """The web process of a balancer at a port of loopback."""

    def __init__(self, proxy: Proxy, daemon_pid: int, port: int) -> None:
        self.proxy = proxy
        self.daemon_pid = daemon_pid
        self.port = port

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Return the answer to a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())

    def read(self, path: str) -> str:
        """Return the body of a good answer."""
        answer = self.ask(path)
        assert answer.status == 200, answer
        return answer.body

    def measure(self, name: str) -> float:
        """Return the value of a metric, given with its labels."""
        lines = [line for line in self.read("/metrics").splitlines() if line.startswith(f"{name} ")]
        return float(lines[0].split()[-1])

    def find_process(self) -> psutil.Process:
        """Return the web process."""
        children = psutil.Process(self.daemon_pid).children()
        return next(child for child in children if "web" in child.cmdline())

    def is_up(self) -> bool:
        """Return whether it answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("/healthz").status == 200
        return False


@contextlib.contextmanager
def serving(proxy: Proxy, **environment: str) -> Iterator[Web]:
    """Run the daemon with its web process at loopback."""
    port = free_port()
    with running_daemon(proxy, **({BIND: f"127.0.0.1:{port}"} | environment)) as daemon:
        web = Web(proxy, daemon.pid, port)
        wait_for(web.is_up, lambda: log_path(proxy).read_text())
        yield web


def join(proxy: Proxy, name: str, port: int) -> None:
    """Let a node join, and wait until it is served."""
    proxy.record(name, port)
    wake(proxy.settings.wake_fifo)
    wait_for(lambda: name in proxy.servers(), f"{name} is served")


def test_paths_and_their_rules(proxy: Proxy) -> None:
    """Each path answers what it is for, with the headers of its kind; nothing can be changed, and others are 404."""
    with answering() as application, serving(proxy, SERF_HAPROXY_COOKIE="SRV") as web:
        join(proxy, "web1", application.port)
        wait_for(lambda: web.ask("/readyz").status == 200, "it is ready")
        path = "/v1/services/nodes/servers/web1"
        wait_for(lambda: web.ask(path).status == 200, lambda: web.ask(path).body)  # a second later at most
        wait_for(lambda: json.loads(web.read(path))["haproxy"], lambda: web.read(path))
        member = json.loads(web.read(path))
        status = json.loads(web.read("/v1/status"))
        assert [one["name"] for one in status["members"]] == ["web1"]
        assert ["decision", "serving: it is alive in Serf"] in [
            [label, text.partition(",")[0]] for label, text in member["lines"]
        ]
        assert (member["state"], member["haproxy"]["address"]) == ("serving", f"127.0.0.1:{application.port}")
        assert f"server web1 127.0.0.1:{application.port}" in web.read("/v1/config")
        happenings = json.loads(web.read("/v1/history"))["happenings"]
        told = [one["what"] for one in happenings if (one["kind"], one["node"]) == ("node", "web1")]
        assert [one.rpartition(" -> ")[2] for one in told] == [f"serving 127.0.0.1:{application.port}"], happenings
        page = web.ask("/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
        for answer in (page, web.ask("/v1/status"), web.ask("/nothing"), web.ask("/healthz")):
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert web.ask("/nothing").status == 404
        assert web.ask("/v1/services/nodes/servers/web2").status == 404
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert web.ask("/v1/status", method).status == 405
        head = web.ask("/v1/config", "HEAD")
        assert (head.status, head.body) == (200, "")
        assert int(head.headers["Content-Length"]) > 100
        assert web.ask("/v1/status", Host="evil.example").status == 403


def list_checks(web: Web) -> str:
    """Return what the doctor finds, each thing with its remedy."""
    environ = os.environ | web.proxy.environment | {BIND: f"127.0.0.1:{web.port}"}
    return "\n".join(f"{check.what}: {check.remedy}" for check in examine(environ))


def test_a_daemon_that_is_stopped_is_told(proxy: Proxy) -> None:
    """All that shows the daemon says it at once: HTTP, `status`, `doctor`, and a command that gives an order."""
    with answering() as application, serving(proxy) as web:
        join(proxy, "web1", application.port)
        assert json.loads(web.read("/v1/status"))["daemon"]["state"] == "up"
        assert f"the web process answers at 127.0.0.1:{web.port}" in list_checks(web)
        with stopped(web.daemon_pid):
            assert web.ask("/healthz").status == 503
            wait_for(lambda: json.loads(web.read("/v1/status"))["daemon"]["state"] == "frozen", "it is told")
            assert "daemon frozen" in run(proxy, "status", "--exit-code")
            what = f"daemon: its process {web.daemon_pid} is stopped, as by SIGSTOP"
            assert f"{what}, so no change of the cluster reaches HAProxy: continue it" in list_checks(web)
            said = run(proxy, "maint", "set", "web1", "--reason", "x")
            assert "once the daemon goes on, which is stopped now" in said
        wait_for(lambda: "maint drain" in run(proxy, "history"), "the order is obeyed")
        wait_for(lambda: web.ask("/healthz").status == 200, "it is well again")
        with stopped(web.find_process().pid):
            assert f"the web process does not answer at 127.0.0.1:{web.port}: no answer" in list_checks(web)


def test_metrics_follow_what_happens(short_dir: Path) -> None:
    """Passes, reloads and their times are counted; gauges tell the present state."""
    with contextlib.ExitStack() as stack:
        application = stack.enter_context(answering())
        proxy = stack.enter_context(running_proxy(short_dir))
        host, port = proxy.settings.rpc_addr
        gossip = stack.enter_context(run_serf("lb1", host, port, "role=balancer"))
        web = stack.enter_context(serving(proxy))
        wait_for(lambda: web.measure("serf_haproxy_serf_up") == 1, "Serf is up")
        tags = ("role=web", f"port={application.port}")
        stack.enter_context(run_serf("web1", host, free_port(), *tags, options=(f"-join={gossip}",)))
        name = 'serf_haproxy_servers_up{service="nodes"}'
        wait_for(lambda: web.measure(name) == 1, lambda: web.read("/metrics"))
        assert web.measure('serf_haproxy_members{status="alive"}') == 2
        assert web.measure('serf_haproxy_nodes{service="nodes",state="serving"}') == 1
        assert web.measure('serf_haproxy_nodes{service="nodes",state="ignored"}') == 1
        assert web.measure("serf_haproxy_haproxy_up") == 1
        assert web.measure("serf_haproxy_settings_good") == 1
        passes = [f'serf_haproxy_passes_total{{outcome="{outcome}"}}' for outcome in ("applied", "reloaded")]
        wait_for(lambda: any(map(web.measure, passes)), "the pass that follows a server that was given ahead of it")
        applied, reloaded = map(web.measure, passes)
        assert web.measure('serf_haproxy_reloads_total{result="ok"}') == reloaded
        assert web.measure("serf_haproxy_runtime_commands_total") >= applied
        assert web.measure("serf_haproxy_pass_duration_seconds_count") >= applied
        assert abs(web.measure("serf_haproxy_last_good_pass_timestamp_seconds") - time.time()) < 120


def test_metrics_tell_of_orders_and_of_changes_by_hand(proxy: Proxy) -> None:
    """A gauge counts the orders that have effect, and a counter the servers that were put right."""
    with answering() as application, serving(proxy) as web:
        join(proxy, "web1", application.port)
        wait_for(lambda: web.measure('serf_haproxy_servers_up{service="nodes"}') == 1, lambda: web.read("/metrics"))
        assert web.measure("serf_haproxy_drifts_total") == 0
        probe.change(proxy.settings, ["set server nodes/web1 state maint"])
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: web.measure("serf_haproxy_drifts_total") == 1, lambda: web.read("/metrics"))
        drained = 'serf_haproxy_orders{order="drain"}'
        assert web.measure(drained) == 0
        run(proxy, "maint", "set", "web1", "--reason", "disk")
        wait_for(lambda: web.measure(drained) == 1, lambda: web.read("/metrics"))
        (order,) = json.loads(web.read("/v1/status"))["orders"]
        assert (order["node"], order["mode"], order["reason"]) == ("web1", "drain", "disk")
        run(proxy, "maint", "unset", "web1")
        wait_for(lambda: web.measure(drained) == 0, lambda: web.read("/metrics"))


def test_events_are_timed(proxy: Proxy) -> None:
    """What a handler writes is an event, and its way to HAProxy is measured; events that change nothing are not."""
    with serving(proxy) as web:
        wait_for(lambda: "serf_haproxy_haproxy_up" in web.read("/metrics"), "the first report")
        for number in (1, 2):
            join(proxy, f"web{number}", 8001)
        alive, count = 'serf_haproxy_events_total{status="alive"}', "serf_haproxy_event_applied_seconds_count"
        wait_for(lambda: (web.measure(alive), web.measure(count)) == (2, 2), lambda: web.read("/metrics"))
        assert 0 < web.measure("serf_haproxy_event_applied_seconds_sum") < 60
        applied = web.measure('serf_haproxy_passes_total{outcome="applied"}')
        proxy.record("odd", 99999)  # it becomes no server
        proxy.record("web1", 8001, colour="red")
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: web.measure(alive) == 4, lambda: web.read("/metrics"))
        ways = [one["way"] for one in read_story(web) if (one["kind"], one["subject"]) == ("node", "odd")]
        assert [way["applied_s"] for way in ways if way] == [None]
        assert web.measure(count) == 2
        assert web.measure('serf_haproxy_passes_total{outcome="applied"}') >= applied


def read_story(web: Web) -> list[dict[str, Any]]:
    """Return the lines that a page that is opened now gets first."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)) as connection:
        connection.request("GET", "/v1/stream")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        lines = itertools.islice(iter(response.readline, b""), 20)
        data = next(line for line in lines if line.startswith(b"data: "))
        return list(json.loads(data.removeprefix(b"data: "))["lines"])


@pytest.mark.parametrize("algorithm", ["roundrobin", "static-rr"])
def test_the_way_of_an_event_ends_with_the_first_request(short_dir: Path, algorithm: str) -> None:
    """Each step has its time, with a server added at run time and with a reload; the first request is enclosed."""
    chosen = {"SERF_HAPROXY_BALANCE": algorithm}
    with (
        answering() as application,
        running_proxy(short_dir, **chosen) as proxy,
        serving(proxy, **chosen) as web,
    ):
        wait_for(lambda: "serf_haproxy_haproxy_up" in web.read("/metrics"), "the first report")

        def find_way() -> dict[str, float]:
            """Return the way of the node's last decision, as far as it has come."""
            web.read("/metrics")  # it is read anew
            ways = [one["way"] for one in read_story(web) if (one["kind"], one["subject"]) == ("node", "web1")]
            return dict(ways[-1] or {}) if ways else {}

        before_s = time.time()
        join(proxy, "web1", application.port)
        wait_for(lambda: find_way().get("applied_s"), lambda: str(read_story(web)))
        assert find_way()["asked_s"] is None
        proxy.wait_up("web1")
        began_s = time.time()
        with contextlib.closing(http.client.HTTPConnection(proxy.settings.frontend_bind, timeout=20)) as client:
            client.request("GET", "/")
            assert client.getresponse().status == 200
        ended_s = time.time()
        wait_for(lambda: find_way().get("asked_s"), lambda: str(read_story(web)))
        way = find_way()
        # The clock of files runs a few milliseconds behind.
        assert before_s - 0.1 < way["heard_s"] <= way["decided_s"] <= way["applied_s"] <= began_s
        assert way["applied_s"] <= way["unasked_s"] <= ended_s
        assert began_s <= way["asked_s"] < ended_s + 30


def test_the_story_begins_before_the_process(proxy: Proxy) -> None:
    """A web process that starts anew tells what the history has of the time before."""
    with serving(proxy) as web:
        join(proxy, "web1", 9)
        first = web.find_process()
        first.kill()
        wait_for(lambda: not first.is_running() and web.is_up(), lambda: log_path(proxy).read_text())
        wait_for(lambda: any(one["subject"] == "web1" for one in read_story(web)), lambda: str(read_story(web)))


def test_haproxy_that_is_gone_is_told(proxy: Proxy) -> None:
    """Without HAProxy the process answers still: not ready, and HAProxy is not up."""
    with serving(proxy) as web:
        wait_for(lambda: web.ask("/readyz").status == 200, "it is ready")
        proxy.stop()
        wait_for(lambda: web.ask("/readyz").status == 503, "it is not")
        wait_for(lambda: web.measure("serf_haproxy_haproxy_up") == 0, lambda: web.read("/metrics"))
        assert web.ask("/healthz").status == 200


def test_the_configuration_shows_no_secret(short_dir: Path) -> None:
    """The key of sticky cookies is hidden."""
    secret = short_dir / "secret"
    secret.write_text("a-secret-of-24-characters")
    environment = {"SERF_HAPROXY_COOKIE": "SRV", "SERF_HAPROXY_COOKIE_SECRET_FILE": str(secret)}
    with running_proxy(short_dir, **environment) as proxy, serving(proxy) as web:
        live = Path(proxy.settings.config_path).read_text()
        key = next(line.split()[1] for line in live.splitlines() if line.split()[:1] == ["dynamic-cookie-key"])
        shown = web.read("/v1/config")
        assert key in live
        assert key not in shown
        assert "dynamic-cookie-key ********" in shown


def test_a_unix_socket_is_for_its_user(proxy: Proxy, short_dir: Path) -> None:
    """The process listens at a Unix socket that only its user can open, also where a dead one has left its file."""
    path = short_dir / "web.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))

    def ask() -> bytes:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"GET /v1/config HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return client.makefile("rb").read()

    def is_up() -> bool:
        with contextlib.suppress(OSError):
            return ask().startswith(b"HTTP/1.1 200 OK")
        return False

    with running_daemon(proxy, **{BIND: str(path)}):
        wait_for(is_up, lambda: log_path(proxy).read_text())
        assert path.stat().st_mode & 0o777 == 0o600
    wait_for(lambda: not path.exists(), "the socket is removed")


def test_the_token_is_asked_for(proxy: Proxy, short_dir: Path) -> None:
    """With a token all but the probes ask for it."""
    token = short_dir / "token"
    token.write_text("a-token-of-24-characters")
    with serving(proxy, SERF_HAPROXY_WEB_TOKEN_FILE=str(token)) as web:
        for path in ("/", "/metrics", "/v1/status", "/v1/config", "/v1/stream", "/nothing"):
            answer = web.ask(path)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert web.ask("/healthz").status == 200
        assert web.ask("/metrics", Authorization="Bearer a-token-of-24-characters").status == 200


def test_a_web_process_that_dies_is_started_again(proxy: Proxy) -> None:
    """The daemon starts it anew; it ends with the daemon, however that ends."""
    with serving(proxy) as web:
        first = web.find_process()
        first.kill()
        wait_for(lambda: not first.is_running() and web.is_up(), lambda: log_path(proxy).read_text())
        second = web.find_process()
        os.kill(web.daemon_pid, signal.SIGKILL)
        gone, _ = psutil.wait_procs([second], 30)
        assert gone


def test_the_settings_switch_it_on_and_off(proxy: Proxy, short_dir: Path) -> None:
    """A daemon that reads other settings starts, moves and ends the web process."""
    path = short_dir / "settings.toml"
    path.write_text("")
    first, second = free_port(), free_port()
    with running_daemon(proxy, SERF_HAPROXY_SETTINGS_FILE=str(path)) as daemon:
        for port in (first, second):
            path.write_text(f'web_bind = "127.0.0.1:{port}"\n')
            daemon.send_signal(signal.SIGHUP)
            wait_for(Web(proxy, daemon.pid, port).is_up, lambda: log_path(proxy).read_text())
        assert not Web(proxy, daemon.pid, first).is_up()
        path.write_text("web_bind = 7\n")
        daemon.send_signal(signal.SIGHUP)
        web = Web(proxy, daemon.pid, second)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: web.measure("serf_haproxy_settings_good") == 0, lambda: web.read("/metrics"))
        path.write_text("")
        daemon.send_signal(signal.SIGHUP)
        wait_for(lambda: not web.is_up(), "it is off")


def test_a_port_in_use_stops_no_pass(proxy: Proxy) -> None:
    """A web process that cannot listen says so, and is tried again; passes go on."""
    with contextlib.closing(socket.create_server(("127.0.0.1", free_port()))) as taken:
        port = taken.getsockname()[1]
        with running_daemon(proxy, **{BIND: f"127.0.0.1:{port}"}) as daemon:
            said = f"cannot listen at 127.0.0.1:{port}"
            wait_for(lambda: said in log_path(proxy).read_text(), lambda: log_path(proxy).read_text())
            join(proxy, "web1", 8001)
            taken.close()
            wait_for(Web(proxy, daemon.pid, port).is_up, lambda: log_path(proxy).read_text())


@pytest.mark.parametrize("log_format", ["json", "logfmt"])
def test_the_web_process_logs_as_the_daemon_does(proxy: Proxy, log_format: str) -> None:
    """What the web process says is in the daemon's log, in the daemon's format."""
    with contextlib.closing(socket.create_server(("127.0.0.1", free_port()))) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with running_daemon(proxy, **{BIND: bind}, SERF_HAPROXY_LOG_FORMAT=log_format):
            said = f"cannot listen at {bind}"
            wait_for(lambda: said in log_path(proxy).read_text(), lambda: log_path(proxy).read_text())
            wait_for(lambda: "it starts again" in log_path(proxy).read_text(), lambda: log_path(proxy).read_text())
    lines = log_path(proxy).read_text().splitlines()
    if log_format == "json":
        levels = [told["level"] for told in map(json.loads, lines) if said in told["msg"]]
        assert levels[0] == "ERROR"
    else:
        assert [line for line in lines if not line.startswith("level=")] == []
        assert next(line for line in lines if said in line).startswith('level=ERROR msg="')


def test_passes_go_on_while_the_web_process_is_stopped(proxy: Proxy) -> None:
    """A web process that does not read what it is told makes no pass wait."""
    with serving(proxy) as web:
        process = web.find_process()
        process.suspend()
        try:
            join(proxy, "web1", 8001)
            join(proxy, "web2", 8002)
        finally:
            process.resume()
        wait_for(lambda: web.measure('serf_haproxy_servers{service="nodes"}') == 2, lambda: web.read("/metrics"))


def change(proxy: Proxy, number: int) -> float:
    """Move a node to another port; return how long the pass that does it takes by the daemon's clock, seconds."""
    record = Path(proxy.settings.state_dir, "last_pass.json")
    proxy.record("web1", 9000 + number)
    began_s = time.time()
    wake(proxy.settings.wake_fifo)
    wait_for(lambda: f"127.0.0.1:{9000 + number} " in Path(proxy.settings.config_path).read_text(), "web1 has moved")
    wait_for(lambda: json.loads(record.read_text())["at_s"] > began_s, "the pass is recorded")
    return float(json.loads(record.read_text())["took_s"])


class Attack:
    """Clients that hold connections: silent, slow, with huge heads, or that do not read."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._held: list[socket.socket] = []

    def connect(self, data: bytes) -> socket.socket | None:
        """Open a connection, send, and hold it."""
        client = socket.socket()
        client.settimeout(5)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", self._port))
            self._held.append(client)
            client.sendall(data)
            return client
        return None

    def run(self) -> None:
        """Hold a thousand connections, most of which the process has to end."""
        head = b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n"
        for number in range(1000):
            data = (b"", head, head + b"X: " + b"x" * 20_000, head + b"\r\n", b"\x16\x03\x01" * 50)[number % 5]
            self.connect(data)

    def drip(self) -> None:
        """Send one more byte on each connection."""
        for client in self._held:
            with contextlib.suppress(OSError):
                client.send(b"x")

    def end(self) -> None:
        """Close all connections."""
        for client in self._held:
            client.close()


@pytest.mark.usefixtures("time_limit")
def test_hostile_clients_delay_no_pass(proxy: Proxy) -> None:
    """A thousand silent, slow, long or deaf connections: passes take as long as before, and others are answered."""
    with serving(proxy) as web:
        join(proxy, "web1", 9000)
        before_s = [change(proxy, number) for number in range(1, 6)]
        process = web.find_process()
        attack = Attack(web.port)
        try:
            attack.run()
            during_s = []
            for number in range(6, 11):
                attack.drip()
                during_s.append(change(proxy, number))
            assert statistics.median(during_s) < 5 * statistics.median(before_s) + 0.5, (before_s, during_s)
            assert web.read("/metrics")
            assert process.is_running()
            assert process.num_fds() < 200
            assert process.memory_info().rss < 200 * 2**20
        finally:
            attack.end()
        wait_for(lambda: process.num_fds() < 40, lambda: f"{process.num_fds()} descriptors are open still")
