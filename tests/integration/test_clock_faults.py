"""Clock jumps: node files and state dated in the future or long ago, and temporary files of dead handlers."""

import json
import os
import time
from pathlib import Path

import pytest

import probe
from fakes.web import answering
from integration.proxy import Proxy, wait_for
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.roster import Roster

HOUR_S = 3600.0
JUMPS_S = {"5 h ahead": 5 * HOUR_S, "20 s ahead": 20.0, "5 h ago": -5 * HOUR_S, "9 days ago": -216 * HOUR_S}
jumps = pytest.mark.parametrize("jump_s", JUMPS_S.values(), ids=JUMPS_S)


def shift(proxy: Proxy, jump_s: float, *names: str) -> None:
    """Shift the dates of node files, as after a clock change."""
    at_s = time.time() + jump_s
    for name in names:
        os.utime(Path(proxy.settings.nodes_dir, name), (at_s, at_s))


@jumps
def test_alive_nodes_are_served_whatever_the_date_of_their_files(proxy: Proxy, jump_s: float) -> None:
    """Alive nodes stay, left and failed nodes go at the latest after their delay, and no node is quarantined."""
    for number in range(1, 5):
        proxy.record(f"web{number}", 8000 + number)
    shift(proxy, jump_s, "web1", "web2", "web3", "web4")
    assert proxy.run_pass().verdict is Verdict.APPLIED
    assert proxy.servers() == {"web1", "web2", "web3", "web4"}
    proxy.record("web3", 8003, status="left")
    proxy.record("web4", 8004, status="failed")
    shift(proxy, jump_s, "web1", "web2", "web3", "web4")
    outcome = proxy.run_pass(failed_grace_s=2.0)
    assert outcome.problems == ()
    wait_for(
        lambda: proxy.run_pass(failed_grace_s=2.0) and proxy.servers() == {"web1", "web2"}, "grace and drain end", 5
    )


@pytest.mark.parametrize(("jump_s", "is_held"), [(5 * HOUR_S, True), (-5 * HOUR_S, True), (-216 * HOUR_S, False)])
def test_mass_loss_is_held_whatever_its_date(proxy: Proxy, jump_s: float, is_held: bool) -> None:
    """When all servers fail, they are held, unless they failed longer ago than the guard's time limit.

    Those that are down are not the last ones that can serve.
    """
    names = [f"web{number}" for number in range(1, 5)]
    with answering() as web:
        for name in names:
            proxy.record(name, web.port)
        proxy.run_pass()
        proxy.wait_up(*names)
        proxy.run_pass()
    wait_for(lambda: all(one.status == "DOWN" for one in (probe.read_servers(proxy.settings) or {}).values()), "down")
    for name in names:
        proxy.record(name, web.port, status="failed")
    shift(proxy, jump_s, *names)
    outcome = proxy.run_pass()
    assert (probe.sum_up(outcome) == "HELD") is is_held
    assert bool(proxy.servers()) is is_held


@jumps
def test_the_roster_corrects_a_file_whatever_its_date(proxy: Proxy, jump_s: float) -> None:
    """The roster corrects a node file whose leave event was missed, also when the clock was set back since."""
    for name in ("web1", "web2"):
        proxy.record(name, 8001)
    shift(proxy, jump_s, "web1", "web2")
    proxy.run_pass()
    time.sleep(0.01)  # file times have a resolution of 4 ms
    listed = {
        name: (status, make_member(name, "127.0.0.1", {"port": "8001"}))
        for name, status in (("web1", "alive"), ("web2", "left"))
    }
    ask = lambda: Roster(time.time_ns(), "lb1", listed)  # noqa: E731
    wait_for(lambda: reconcile(proxy.settings, ask) and proxy.servers() == {"web1"}, "web2 is gone", 3)


@pytest.mark.parametrize("jump_s", [5 * HOUR_S, -5 * HOUR_S])
def test_a_node_is_damped_no_longer_than_three_half_lives(proxy: Proxy, jump_s: float) -> None:
    """A flap record dated in the future keeps a node out no longer than a record made now."""
    with answering() as web:
        _check_damping(proxy, web.port, jump_s)


def _check_damping(proxy: Proxy, port: int, jump_s: float) -> None:
    for name in ("web1", "web2", "web3"):
        proxy.record(name, port)
    proxy.run_pass()
    proxy.wait_up("web1", "web2", "web3")
    memory = {"web3": [24.0, time.time() + jump_s, True, True]}
    Path(proxy.settings.state_dir, "flaps.json").write_text(json.dumps(memory))
    options = {"flap_cutoff": 6.0, "flap_half_life_s": 1.0}
    proxy.run_pass(**options)
    assert proxy.servers() == ({"web1", "web2"} if jump_s > 0 else {"web1", "web2", "web3"})
    wait_for(lambda: proxy.run_pass(**options) and proxy.servers() == {"web1", "web2", "web3"}, "it serves again", 8)


def test_the_temporary_file_of_a_dead_handler_is_removed(proxy: Proxy) -> None:
    """A killed handler's temporary file is removed when it is too old to be in use."""
    proxy.record("web1", 8001)
    dead, alive = (Path(proxy.settings.nodes_dir, name) for name in (".web1.4194303", ".web2.4194302"))
    for path in (dead, alive):
        path.write_text("alive\tweb")
    os.utime(dead, (time.time() - 60, time.time() - 60))
    assert proxy.run_pass().problems == ()
    assert (dead.exists(), alive.exists()) == (False, True)
    assert proxy.servers() == {"web1"}
