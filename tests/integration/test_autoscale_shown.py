"""What the autoscaler does is shown: status, explain, history, metrics and the page, of a lab under load."""

import http.client
import json
import re
from pathlib import Path

import pytest

import workers
from integration.browser import browsing
from integration.stage import MOST, Stage, load, make_stage


def measure(port: int) -> dict[str, float]:
    """Return the metrics about scaling, by name with labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.findall(r"^serf_haproxy_scale_(\S+\{.*\}) (\S+)$", text, re.MULTILINE)
    return {
        name.replace('service="shop"', "").replace("{,", "{").replace("{}", ""): float(value) for name, value in found
    }


def ask_status(stage: Stage) -> dict[str, object]:
    """Return what the status says of how the service scales."""
    told: dict[str, object] = json.loads(stage.command("status", "--json"))["services"]["shop"]["scaling"]
    return told


def test_every_decision_is_shown_with_its_reason(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While servers come and go, status, explain, history, metrics and page say demand, servers, decisions and why."""
    port = next(workers.free_ports())
    monkeypatch.setenv("SERF_HAPROXY_WEB_BIND", f"127.0.0.1:{port}")
    with make_stage(short_dir) as stage, browsing() as tab:
        tab.open(f"http://127.0.0.1:{port}/")
        tab.wait("document.querySelector('.scale')?.innerText.includes('1 in service, 1 wanted')")
        assert load(stage, 60, 8, work_s=0.2).faults == {}
        stage.wait(lambda: len(stage.serving()) == MOST)
        stage.wait(lambda: measure(port)['slots{state="serving"}'] == MOST)
        assert measure(port)["capacity"] == pytest.approx(MOST * 2.8)
        assert measure(port)["servers_most"] == MOST
        assert measure(port)['decisions_total{what="start done"}'] >= MOST
        tab.wait(f"document.querySelector('.scale').innerText.includes('{MOST} in service')")
        tab.wait("document.querySelector('.scale ol').innerText.includes('start done shop-4 it took')")
        assert "requests at once" in tab.read(".scale")
        assert tab.run("document.querySelectorAll('.scale > svg polyline').length") == 4
        stage.wait(lambda: stage.happened("stop done") == MOST - 1)
        stage.wait(lambda: ask_status(stage)["have"] == 1)
        status = ask_status(stage)
        assert (status["wanted"], status["min"], status["is_deciding"]) == (1, 1, True)
        stage.wait(lambda: measure(port)['decisions_total{what="stop done"}'] == MOST - 1)
        assert "service shop scales: 1 of 1 to 4 servers, 1 wanted" in stage.command("status", "-o", "wide")
        assert "scaling     serving; 1 in service or starting, 1 wanted" in stage.command("explain", "shop-1")
        history = stage.command("history", "--since", "10m")
        assert re.search(r"scale shop/shop-\d: drain; up to \d+ requests at once in the last 10 s", history)
        tab.wait("document.querySelector('.scale').innerText.includes('1 in service, 1 wanted')")
        assert tab.faults == []
