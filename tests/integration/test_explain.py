"""`explain` says why a node is as it is."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

import probe
from integration.balancer import Balancer
from integration.proxy import wait_for
from integration.test_status import COMMAND, run

pytestmark = pytest.mark.usefixtures("time_limit")


def test_a_node_that_serves_is_explained(balancer: Balancer) -> None:
    """What Serf said and how it was heard, the decision, its rule and settings, HAProxy's view, what would change."""
    shown = run(balancer, "explain", "web1")
    assert shown.returncode == 0
    wanted = [
        r"web1 in service nodes: serving \(ok\)",
        r"Serf +alive, written down .* \(\d+s ago\); an event of Serf's said so",
        r" +address 127.0.0.1, role -, tags port=\d+",
        r"Serf now +unknown to Serf; the next pass that asks follows",
        r"decision +serving: it is alive in Serf, since .* ago\)",
        r"rule +A node serves while",
        r"setting +balancer_roles = balancer,lb \(SERF_HAPROXY_BALANCER_ROLES\)",
        rf"server +127.0.0.1 port {balancer.ports['web1']}, weight 1",
        r"HAProxy +UP for \d+s; its last health check found L7OK 200",
        r"changes if +it leaves or fails",
    ]
    for pattern in wanted:
        assert re.search(f"^{pattern}", shown.stdout, re.M), (pattern, shown.stdout)


def test_an_explanation_has_the_last_events(balancer: Balancer) -> None:
    """Decisions, orders and drifts about the node, the newest last, and what a pause and a failing check add."""
    probe.change(balancer.settings, ["set server nodes/web1 state maint"])
    balancer.run_pass()
    balancer.wait_up("web1", "web2")
    run(balancer, "maint", "set", "web1", "--reason", "disk swap", "--by", "alice")
    run(balancer, "maint", "set", "web9", "--reason", "another one")
    balancer.run_pass()
    shown = run(balancer, "explain", "web1").stdout
    events = " ".join(shown.partition("\nevents ")[2].partition("\nchanges if")[0].split())
    endpoint, ago = f"127.0.0.1:{balancer.ports['web1']}", r" [\d-]+ [\d:]+Z \(\d+s ago\) "
    wanted = (
        rf"unknown -> serving {endpoint}; it is alive in Serf",
        "drift: it was in maintenance; changed at HAProxy's socket; it is put right",
        r"order: maint drain; an order drains it: disk swap \(alice at lb1, \S+\) \(by alice\)",
        rf"served -> draining {endpoint} weight 0; an order drains it: disk swap \(alice at lb1, \S+\) \(by alice\)",
    )
    assert re.fullmatch("".join(ago + pattern for pattern in wanted), f" {events}"), shown
    assert "another one" not in shown
    run(balancer, "pause")
    balancer.run_pass()
    balancer.webs["web2"].status = 503
    wait_for(lambda: "HAProxy's health check of it succeeds" in run(balancer, "explain", "web2").stdout, "it is down")
    changes = run(balancer, "explain", "web2").stdout.partition("changes if")[2]
    assert re.match(" +the pause ends, by `serf-haproxy resume`", changes)
    (found,) = json.loads(run(balancer, "explain", "web1", "-o", "json").stdout)["explanations"]
    assert {one["kind"] for one in found["events"]} == {"node", "drift", "order"}


def test_a_node_is_explained_while_serf_and_haproxy_are_away(balancer: Balancer) -> None:
    """What is not known is said to be unknown."""
    balancer.record("web3", 0)
    os.kill(balancer.serf, signal.SIGKILL)
    balancer.stop(signal.SIGKILL)
    shown = run(balancer, "explain", "web3").stdout
    assert "quarantined: tag port='0' is not a whole number from 1 to 65535" in shown
    assert "it does not answer, so what it says now is not known" in shown
    assert "HAProxy     no HAProxy listens on " in shown


def test_an_explanation_is_json_too(balancer: Balancer) -> None:
    """Programs get the same, with the settings and where to change them."""
    document = json.loads(run(balancer, "explain", "lb1", "-o", "json").stdout)
    (found,) = document["explanations"]
    assert (document["version"], found["state"], found["cause"]) == (1, "ignored", "balancer")
    assert found["heard"]["now"] == "alive"
    assert found["settings"] == [
        {"key": "balancer_roles", "value": "balancer,lb", "where": "SERF_HAPROXY_BALANCER_ROLES"}
    ]


def test_a_node_that_is_not_known_has_a_neighbour(balancer: Balancer) -> None:
    """A misspelt name is wrong input, and the nearest names are said."""
    shown = run(balancer, "explain", "wbe1")
    assert shown.returncode == 100
    assert "node 'wbe1': no such node is known; did you mean web1" in shown.stderr
    shown = run(balancer, "explain", "web1", "--service", "shop")
    assert (shown.returncode, shown.stderr) == (
        100,
        "serf-haproxy: node 'web1' is not in a service 'shop'; it is in nodes\n",
    )


def test_a_command_with_other_settings_than_the_daemon_says_so(balancer: Balancer) -> None:
    """The warning names what differs and where to put it; the same settings are no warning."""
    assert "settings" not in run(balancer, "status").stdout
    balancer.run_pass(balance="leastconn")
    shown = run(balancer, "status").stdout
    assert (
        "WARNING settings: the last pass had others than this command: balance=leastconn; put them into /etc/" in shown
    )


def test_the_daemon_begins_its_log_with_what_it_found(balancer: Balancer, tmp_path: Path) -> None:
    """The first line has version, settings' origin and what was found; a misspelt variable is a warning; JSON works."""
    settings = tmp_path / "settings.toml"
    settings.write_text('log_format = "json"\nbalance = "leastconn"\n')
    balancer.environment |= {"SERF_HAPROXY_SETTINGS_FILE": str(settings), "SERF_HAPROXY_BALENCE": "first"}
    argv, environ = [*COMMAND, "run"], os.environ | balancer.environment
    environ |= {"SERF_HAPROXY_STATE_DIR": str(tmp_path / "state")}  # the test has the lock of the other one
    with subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            first, second = (json.loads(process.stderr.readline()) for _ in range(2))
        finally:
            process.terminate()
        process.stderr.read()
    assert (first["level"], first["msg"]) == (
        "WARNING",
        "SERF_HAPROXY_BALENCE: there is no such setting; did you mean SERF_HAPROXY_BALANCE?",
    )
    said = (
        rf"serf-haproxy [\d.a-z]+ starts; settings: \d+ variables, 2 from {settings}; found: HAProxy 2.* up, Serf up, "
    )
    assert re.match(said + "3 node files in ", second["msg"]), second
