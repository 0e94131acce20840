"""Requests to a lab, and nodes that are made slow or broken by hand."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import workers
from integration.proxy import wait_for
from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab import traffic
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.services import Wish
from serf_haproxy.lab.traffic import Traffic, make_traffic

COMMAND = [sys.executable, "-m", "serf_haproxy", "lab"]


@pytest.fixture
def lab(short_dir: Path) -> Iterator[Lab]:
    """Yield a lab with three nodes of the default service and one of a TCP service."""
    running = Lab(short_dir / "lab", next(workers.lab_bases()))
    running.up(nodes=3, services=[Wish("pg", "tcp", 1)])
    yield running
    running.down()


def command(lab: Lab, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run one command of the lab."""
    argv = [*COMMAND, *words, "--dir", lab.lab_dir]
    return subprocess.run(argv, capture_output=True, text=True, timeout=150, check=False, env=os.environ)


def load(lab: Lab, **changes: Any) -> traffic.Result:
    """Make some requests."""
    return make_traffic(lab, Traffic(rate=40, duration_s=2)._replace(**changes), is_quiet=True)


def test_nodes_are_slow_and_broken_until_they_are_healed(lab: Lab) -> None:
    """A slow node alone takes ten times its work, a broken one alone fails; healed, both are as the others."""
    work_s = 0.05
    assert command(lab, "slow", "web1").returncode == 0
    assert command(lab, "break", "web2", "--status", "502").returncode == 0
    answers = load(lab, work_s=work_s)
    assert answers.shares.keys() == {"web1", "web2", "web3"}
    assert answers.faults == {"502": answers.shares["web2"]}
    # All requests have work; those of web1, which answers half of the good ones, take ten times as long.
    assert answers.took_ms[-1] > 10 * answers.took_ms[len(answers.took_ms) // 4]
    for name in ("web1", "web2"):
        assert command(lab, "heal", name).returncode == 0
    healed = load(lab, work_s=0.001)
    assert (healed.faults, healed.shares.keys()) == ({}, answers.shares.keys())
    assert healed.percentile(50) < 1000 * work_s * 10


def test_a_delay_slows_health_checks_too_unless_told_otherwise(lab: Lab) -> None:
    """HAProxy takes out a server that delays its health checks by 3 s; one that delays only its answers stays."""
    lab.slow("web1", delay_ms=3000)
    lab.slow("web2", delay_ms=1, checks=False)
    wait_for(lambda: load(lab, duration_s=0.5).shares.keys() == {"web2", "web3"}, "web1 is out", 30)
    lab.heal("web1")
    wait_for(lambda: "web1" in load(lab, duration_s=0.5).shares, "web1 is back", 30)


def test_the_command_shows_each_second_and_the_sums(lab: Lab) -> None:
    """`lab load` prints a line each second with every server, then the sums; with --json only these."""
    said = command(lab, "load", "--rate", "30", "--duration", "3")
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[0].startswith("   1 s")
    assert all(name in lines[0] for name in ("web1", "web2", "web3"))
    assert "requests, 0 failed" in said.stdout
    found = json.loads(command(lab, "load", "--rate", "30", "--duration", "1", "--json").stdout)
    assert sum(found["shares"].values()) == found["requests"] > 0
    assert found["failed"] == {}


def test_a_client_with_its_cookies_keeps_its_session(lab: Lab) -> None:
    """The load sends back cookies only when it is told to."""
    url = lab.status()["balancers"][0]["frontend_url"]
    first = requests.get(url, timeout=10)
    assert first.cookies["NODESESSID"] == first.json()["id"]
    assert load(lab, keeps_cookies=True).faults == {}


def test_no_client_of_the_balancer_can_slow_a_node(lab: Lab) -> None:
    """Through the frontend the orders do not exist; the lab gives them to the nodes themselves."""
    url = lab.status()["balancers"][0]["frontend_url"]
    for path, order in (("delay", {"delay": 60_000}), ("behaviour", {"status": 500})):
        assert requests.post(f"{url}/{path}", json=order, timeout=10).status_code == 404
    assert load(lab).faults == {}


def test_wrong_orders_name_what_is_wrong(lab: Lab) -> None:
    """A TCP node, a node that is gone, values out of range and a service that is not there are named."""
    with pytest.raises(InputError, match="pg1 is of service pg of mode tcp"):
        lab.slow("pg1", times=2)
    with pytest.raises(InputError, match=r"web1: .*0.1 to 1000"):
        lab.slow("web1", times=1e6)
    with pytest.raises(InputError, match="--rate"):
        load(lab, rate=0.0)
    with pytest.raises(InputError, match="no balancer serves 'shop'"):
        load(lab, service="shop")
    both = command(lab, "slow", "web1", "--times", "2", "--delay", "3")
    assert (both.returncode, "not both" in both.stderr) == (100, True)
    lab.crash("web1")
    with pytest.raises(InputError, match="web1 has crashed"):
        lab.heal("web1")
    os.kill(lab.status()["nodes"][1]["app_pid"], 9)
    with pytest.raises(SystemFault, match="the application of web2 takes no order"):
        lab.heal("web2")
