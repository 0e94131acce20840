"""Alert rules and dashboard: promtool's tests, and a real Prometheus that watches a balancer as it breaks."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import psutil
import pytest

from fakes.certificates import write_pair
from fakes.web import Web, answering
from integration.agents import run_serf
from integration.prometheus import find_programs, running_prometheus
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_daemon import COMMAND, log_path
from integration.test_https import make_proxy, start
from integration.test_orders import run
from integration.test_web import serving
from serf_haproxy.control.rendering import BUILT_IN_TEMPLATE
from serf_haproxy.serf.nodes import forget
from serf_haproxy.serf.wake import wake

ROOT = Path(__file__).parents[2]
FILES = resources.files("serf_haproxy.web").joinpath("files")
RULES = FILES.joinpath("alerts.yml").read_text()
DASHBOARD = FILES.joinpath("dashboard.json").read_text()
METRIC = re.compile(r"\bserf_haproxy_\w+")
REFERENCE = (ROOT / "docs" / "reference" / "metrics.md").read_text()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the paths of Prometheus's programs."""
    return find_programs(tmp_path_factory.mktemp("prometheus"))


def list_documented() -> set[str]:
    """Return the metrics in the reference."""
    return set(re.findall(r"^\| `(serf_haproxy_\w+)`", REFERENCE, re.MULTILINE))


def find_family(name: str) -> str:
    """Return the metric whose sample has this name."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_each_alert_fires_at_its_time(programs: dict[str, str], tmp_path: Path) -> None:
    """Promtool finds each alert silent before its time, firing after it, and silent again when the cause is gone."""
    (tmp_path / "alerts.yml").write_text(RULES)
    shutil.copy(ROOT / "tests" / "web" / "alerts_test.yml", tmp_path)
    looks: dict[str, list[str]] = {}
    text = (tmp_path / "alerts_test.yml").read_text()
    for name, is_silent in re.findall(r"alertname: (\w+)(, exp_alerts: \[\])?", text):
        looks.setdefault(name, []).append("silent" if is_silent else "fires")
    assert looks == {name: ["silent", "fires", "silent"] for name in re.findall(r"- alert: (\w+)", RULES)}
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([programs["promtool"], *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    """Every metric of the rules and of the dashboard is in the reference, and each panel asks for one."""
    for text in (RULES, DASHBOARD):
        assert {find_family(name) for name in METRIC.findall(text)} <= list_documented()
    panels = json.loads(DASHBOARD)["panels"]
    assert len(panels) > 10
    assert all(METRIC.search(target["expr"]) for panel in panels for target in panel["targets"])
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places)
    assert all(x + w <= 24 for x, _, w, _ in places)


def test_the_reference_has_every_metric(proxy: Proxy) -> None:
    """The reference lists exactly the metrics that there are."""
    with serving(proxy) as web:
        wait_for(lambda: "serf_haproxy_servers_up" in web.read("/metrics"), "a report was read")
        families = re.findall(r"^# TYPE (\w+)", web.read("/metrics"), re.MULTILINE)
    assert set(families) == list_documented()


def hasten(rules: str, window_s: int) -> str:
    """Return the rules with short times, which a test can wait for."""
    rules = re.sub(r"\bfor: \w+", "for: 1s", rules).replace("_timestamp_seconds > 300", "_timestamp_seconds > 5")
    return re.sub(r"\[\d+m\]", f"[{window_s}s]", rules)


def test_each_alert_is_seen_with_a_real_prometheus() -> None:
    """The tests below break something for every alert."""
    assert set(re.findall(r'"(SerfHaproxy\w+)"', Path(__file__).read_text())) == set(
        re.findall(r"- alert: (\w+)", RULES)
    )


def test_a_real_prometheus_sees_what_breaks(programs: dict[str, str], short_dir: Path, tmp_path: Path) -> None:
    """While something is broken its alert fires; when it is mended the alert ends, and none is left."""
    rules = hasten(RULES, 5).replace("_timestamp_seconds > 5", "_timestamp_seconds > 300")
    with contextlib.ExitStack() as stack:
        application = stack.enter_context(answering())
        proxy = stack.enter_context(running_proxy(short_dir))
        host, port = proxy.settings.rpc_addr
        serf = stack.enter_context(contextlib.ExitStack())
        gossip = serf.enter_context(run_serf("lb1", host, port, "role=balancer"))
        tags = ("role=web", f"port={application.port}")
        stack.enter_context(run_serf("web1", host, free_port(), *tags, options=(f"-join={gossip}",)))
        web = stack.enter_context(serving(proxy))
        wait_for(lambda: 'servers_up{service="nodes"} 1' in web.read("/metrics"), lambda: web.read("/metrics"))
        target = f"127.0.0.1:{web.port}"
        prometheus = stack.enter_context(running_prometheus(programs["prometheus"], tmp_path, rules, target))

        def expect(name: str = "") -> None:
            """Wait until an alert fires, or without one until none does."""
            condition = (lambda: name in prometheus.list_firing()) if name else (lambda: not prometheus.list_firing())
            wait_for(condition, lambda: f"{name or 'none'}: {prometheus.list_firing()}", 120)

        expect()
        application.status = 500
        expect("SerfHaproxyServiceDown")
        application.status = 200
        expect()
        services = Path(proxy.settings.services_file)
        services.write_text('[shop]\nroutes = ["shop.example.com"]\ncolour = "red"\n')
        expect("SerfHaproxyFaults")
        services.unlink()
        expect()
        proxy.stop()
        expect("SerfHaproxyHaproxyDown")
        proxy.start()
        expect()
        with suspended(web.find_process()):
            expect("SerfHaproxyAbsent")
        expect()
        serf.close()
        expect("SerfHaproxySerfDown")
        serf.enter_context(run_serf("lb1", host, port, "role=balancer"))
        wait_for(lambda: "SerfHaproxySerfDown" not in prometheus.list_firing(), "Serf is back", 120)


class Watched:
    """A balancer with three applications, no Serf, and a Prometheus that watches it.

    Attributes:
        proxy: Its HAProxy; with certificates and a template of its own, which is the built-in one.
        web: Its web process.
        applications: The applications, all of them up.
        template: The template's file.
        settings: The file of the daemon's settings, which is empty.
        certificate: The file of its only certificate, good for longer than an alert asks for.
    """

    def __init__(self, directory: Path) -> None:
        self.settings, self.template = directory / "settings.toml", directory / "own.j2"
        self.settings.write_text("")
        self.template.write_text(Path(BUILT_IN_TEMPLATE).read_text())
        paces = {"resync_interval_s": 1, "reload_interval_s": 0, "retry_max_s": 1}
        self.proxy = make_proxy(directory, template_path=self.template, **paces)
        self.certificate = Path(self.proxy.settings.certificates_dir, "shop.pem")
        self.applications: list[Web] = []
        write_pair(self.certificate, "shop.test", days=40)

    @contextlib.contextmanager
    def running(self, program: str, directory: Path) -> Iterator[None]:
        """Run all of it for the length of a block."""
        with contextlib.ExitStack() as stack:
            self.applications = [stack.enter_context(answering()) for _ in range(3)]
            stack.callback(self.proxy.stop)
            start(self.proxy)
            self.web = web = stack.enter_context(serving(self.proxy, SERF_HAPROXY_SETTINGS_FILE=str(self.settings)))
            self.daemon = psutil.Process(web.daemon_pid)
            for number, application in enumerate(self.applications):
                self.proxy.record(f"web{number}", application.port)
            wake(self.proxy.settings.wake_fifo)
            wait_for(lambda: 'servers_up{service="nodes"} 3' in web.read("/metrics"), lambda: web.read("/metrics"))
            rules, target = hasten(RULES, 20), f"127.0.0.1:{web.port}"
            self._prometheus = stack.enter_context(running_prometheus(program, directory, rules, target))
            wait_for(lambda: "SerfHaproxySerfDown" in self._prometheus.list_firing(), self._tell, 120)
            assert self._prometheus.list_firing() == {"SerfHaproxySerfDown"}
            yield

    def _tell(self) -> str:
        lines = [line for line in self.web.read("/metrics").splitlines() if not line.startswith("#")]
        return "\n".join((str(self._prometheus.list_firing()), *lines, log_path(self.proxy).read_text()[-4000:]))

    def expect(self, *names: str) -> None:
        """Wait until these alerts fire."""
        self.wait(lambda: set(names) <= self._prometheus.list_firing(), f"{names} fire")

    def expect_end(self, *names: str) -> None:
        """Wait until none of these alerts fires."""
        self.wait(lambda: not set(names) & self._prometheus.list_firing(), f"{names} end")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds."""
        wait_for(condition, lambda: f"{what}: {self._tell()}", 120)

    def wait_for_pass(self) -> None:
        """Wait until a pass has just ended that found HAProxy to run what it should."""
        passes = 'serf_haproxy_passes_total{outcome="unchanged"}'
        count = self.web.measure(passes)
        self.wait(lambda: self.web.measure(passes) > count, "a good pass")
        record = Path(self.proxy.settings.state_dir, "last_pass.json")
        before_s = json.loads(record.read_text())["at_s"]
        self.wait(lambda: json.loads(record.read_text())["at_s"] != before_s, "one more pass")


@pytest.fixture
def watched(programs: dict[str, str], short_dir: Path, tmp_path: Path) -> Iterator[Watched]:
    """Yield a balancer that a real Prometheus watches, and about which no alert fires but that there is no Serf."""
    balancer = Watched(short_dir)
    with balancer.running(programs["prometheus"], tmp_path):
        yield balancer


def test_a_real_prometheus_sees_states(watched: Watched) -> None:
    """Alerts about servers, nodes, certificates, settings and orders fire while there is a cause, and end with it."""
    names = ["SerfHaproxyServersDown", "SerfHaproxyNodesKeptOut", "SerfHaproxyCertificateEnds"]
    names.append("SerfHaproxySettingsOld")
    for application in watched.applications[1:]:
        application.status = 500
    watched.proxy.record("odd", 99999)
    write_pair(watched.certificate, "shop.test", days=10)
    watched.settings.write_text("balance = 7\n")
    watched.daemon.send_signal(signal.SIGHUP)
    watched.expect(*names)
    for application in watched.applications:
        application.status = 200
    forget(watched.proxy.settings.nodes_dir, "odd")
    write_pair(watched.certificate, "shop.test", days=40)
    watched.settings.write_text("")
    watched.daemon.send_signal(signal.SIGHUP)
    watched.expect_end(*names)
    run(watched.proxy, "pause", "--reason", "upgrade")
    watched.expect("SerfHaproxyCondition")
    run(watched.proxy, "resume")
    watched.expect_end("SerfHaproxyCondition")


def test_a_real_prometheus_sees_what_passes_come_to(watched: Watched) -> None:
    """Alerts about refused configurations, failed reloads, slow and missing passes fire, and end afterwards."""
    text = watched.template.read_text()
    watched.template.write_text(f"{text}\nno words of HAProxy\n")
    watched.expect("SerfHaproxyRefused")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        watched.template.write_text(f"{text}\nlisten taken\n    bind 127.0.0.1:{taken.getsockname()[1]}\n")
        watched.expect("SerfHaproxyReloadsFail")
    watched.template.write_text(text)
    watched.wait_for_pass()
    with suspended(watched.daemon):
        watched.proxy.record("web3", watched.applications[0].port)
        watched.expect("SerfHaproxyNoPass")
        last = "serf_haproxy_last_pass_timestamp_seconds"
        watched.wait(lambda: time.time() - watched.web.measure(last) > 12, "it takes longer than an alert lets pass")
    watched.expect("SerfHaproxySlow")
    watched.expect_end("SerfHaproxyNoPass", "SerfHaproxyRefused", "SerfHaproxyReloadsFail", "SerfHaproxySlow")


def test_a_real_prometheus_sees_old_workers(watched: Watched) -> None:
    """The alert about old workers fires while requests keep too many of them, and ends with these."""
    proxy, text = watched.proxy, watched.template.read_text()
    for application in watched.applications:
        application.is_willing.clear()
    with contextlib.ExitStack() as stack:
        for number in range(6):
            stack.enter_context(asking(proxy))
            count = proxy.reload_count()
            watched.template.write_text(f"{text}\ndefaults\n    timeout tarpit {number + 10}s\n")
            watched.wait(lambda count=count: proxy.reload_count() > count, "a reload")  # type: ignore[misc]
        watched.expect("SerfHaproxyOldWorkers")
        for application in watched.applications:
            application.is_willing.set()
        watched.expect_end("SerfHaproxyOldWorkers")


SCALED = """
[shop]
routes = ["/shop"]
server_maxconn = 4

[shop.scale]
executor = "command"
min = 0
max = {most}
start_limit_s = 3600
list = ["printf", "{filled}"]
start = ["false", "{{slot}}"]
stop = ["true", "{{slot}}"]
"""


def test_a_real_prometheus_sees_scaling(watched: Watched) -> None:
    """Alerts fire while starts fail, while more than `max` is wanted, and while the load is not known whole."""
    path = Path(watched.proxy.settings.services_file)
    path.write_text(SCALED.format(most=1, filled="none"))
    for number in range(len(watched.applications)):
        forget(watched.proxy.settings.nodes_dir, f"web{number}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(run_serf("lb1", *watched.proxy.settings.rpc_addr, "role=balancer"))
        wake(watched.proxy.settings.wake_fifo)
        stack.enter_context(autoscaling(watched.proxy))
        with crowding(watched.proxy):
            watched.expect("SerfHaproxyScaleMost", "SerfHaproxyScaleFails")
            path.write_text(SCALED.format(most=4, filled="shop-1\\\\nshop-2\\\\n"))
            watched.expect_end("SerfHaproxyScaleMost", "SerfHaproxyScaleFails")
        run(watched.proxy, "pause", "--reason", "upgrade")
        watched.expect("SerfHaproxyScaleBlind")
        run(watched.proxy, "resume")
        watched.expect_end("SerfHaproxyScaleBlind")


@contextlib.contextmanager
def autoscaling(proxy: Proxy) -> Iterator[None]:
    """Run the autoscaler for the duration of a block."""
    process = subprocess.Popen([*COMMAND, "autoscale"], env=os.environ | proxy.environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def crowding(proxy: Proxy) -> Iterator[None]:
    """Ask again and again for a service without a server, for the duration of a block."""
    host, port = proxy.settings.frontend_bind.split(":")
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            client = http.client.HTTPConnection(host, int(port), timeout=1)
            with contextlib.closing(client), contextlib.suppress(OSError, http.client.HTTPException):
                client.request("GET", "/shop")
                client.getresponse().read()
            over.wait(0.05)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def asking(proxy: Proxy) -> Iterator[None]:
    """Send a request, whose answer is not awaited, and keep its connection for the duration of a block."""
    host, port = proxy.settings.frontend_bind.split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=20)) as client:
        client.request("GET", "/")
        yield


@contextlib.contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    """Stop a process for the duration of a block."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()
