"""Alert rules and dashboard: promtool's tests, and a real Prometheus that watches a balancer as it breaks."""

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import psutil
import pytest

from fakes.web import answering
from integration.agents import run_serf
from integration.prometheus import find_programs, running_prometheus
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_web import serving

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
    assert looks == dict.fromkeys(re.findall(r"- alert: (\w+)", RULES), ["silent", "fires", "silent"])
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


def test_a_real_prometheus_sees_what_breaks(programs: dict[str, str], short_dir: Path, tmp_path: Path) -> None:
    """While something is broken its alert fires; when it is mended the alert ends, and none is left."""
    rules = re.sub(r"\[\d+m\]", "[5s]", re.sub(r"\bfor: \w+", "for: 1s", RULES))
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


@contextlib.contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    """Stop a process for the duration of a block."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()
