"""Cut networks and frozen processes under load: what can still answer does, and what was out comes back by itself."""

import time

import pytest

from containers.cluster import BACK_S, FAIL_S
from containers.crew import CLIENTS, Crew
from containers.faults import EVERYTHING, GOSSIP, beyond, frozen, wall, worker_pid

GRACE_S = 10  # SERF_HAPROXY_FAILED_GRACE_S, as it is in the image


@pytest.fixture(autouse=True)
def _netfilter(netfilter: None) -> None:
    """Have what `wall` needs."""


def test_a_short_cut_of_a_web_application_costs_no_request(crew: Crew) -> None:
    """One web application hears and reaches nobody for 5 s: every request is answered, if late, and it is back soon."""
    web = crew.webs["web1"]
    with crew.load() as seen:
        with wall([web], EVERYTHING):
            time.sleep(5)
        crew.wait(lambda: crew.balancer.view("web1") == "UP", "web1 is served", BACK_S)
        since = seen.backends[web.address]
        crew.wait(lambda: seen.backends[web.address] > since + 20, "requests to web1 afterwards")
    assert seen.failures == []


def test_a_long_cut_of_a_web_application_costs_what_was_in_flight(crew: Crew) -> None:
    """One is cut off until HAProxy has let it go: only requests that it had already can fail; healed, it is served."""
    with crew.load() as seen:
        with wall([crew.webs["web1"]], EVERYTHING):
            in_flight = _in_flight(crew, "web1")
            crew.wait(lambda: crew.balancer.has_given_up("web1"), "web1 is out", FAIL_S)
        crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)
    assert len(seen.failures) <= in_flight


def test_a_partition_costs_what_was_in_flight(crew: Crew) -> None:
    """Half of the web applications see only one another: the half beside the balancer answers; healed, all do."""
    far = {"web3", "web4"}
    half = [crew.webs[name] for name in sorted(far)]
    with crew.load() as seen:
        with wall(half, beyond(half)):
            in_flight = sum(_in_flight(crew, name) for name in far)
            crew.wait(lambda: crew.balancer.members("failed") == far, "Serf has given them up", FAIL_S)
            crew.wait(lambda: {crew.balancer.view(name) for name in far} <= {"", "MAINT", "DOWN"}, "they are out")
            assert set(crew.balancer.shares(10)) == {"web1", "web2"}
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs, timeout_s=FAIL_S)
    assert len(seen.failures) <= in_flight


def test_a_balancer_cut_off_from_the_gossip_keeps_its_servers(crew: Crew) -> None:
    """Serf's packets to and from the balancer are lost until it has given everybody up: all are served nevertheless."""
    with crew.load() as seen:
        with wall([crew.balancer], GOSSIP):
            crew.wait(lambda: crew.balancer.members("failed") == set(crew.webs), "Serf has given all up", BACK_S)
            time.sleep(GRACE_S + 2)
            assert crew.balancer.serves(*crew.webs), crew.balancer.story()
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs, timeout_s=FAIL_S)
    assert seen.failures == []


@pytest.mark.parametrize(("process", "frozen_s"), [("agent", 3), ("serf", 6), ("haproxy", 3), ("worker", 3)])
def test_a_frozen_process_of_the_balancer_catches_up(crew: Crew, process: str, frozen_s: float) -> None:
    """SIGSTOP, then SIGCONT: requests wait at most, none fails, and what a node said meanwhile counts afterwards."""
    pid = _pid(crew, process)
    with crew.load() as seen:
        with frozen(crew.balancer, pid):
            crew.webs["web1"].exec("serf", "tags", "-set", "weight=7")
            before = seen.ok_count
            time.sleep(frozen_s)
            assert (seen.ok_count <= before + CLIENTS) == (process == "worker")
        crew.wait(lambda: crew.balancer.column("weight")["web1"] == "7", "web1's new weight", FAIL_S)
        crew.webs["web1"].exec("serf", "tags", "-delete", "weight")
        crew.wait(lambda: crew.balancer.column("weight")["web1"] == "1", "web1's old weight", FAIL_S)
    assert seen.failures == []
    assert _pid(crew, process) == pid


def test_a_frozen_application_is_left_out_until_it_thaws(crew: Crew) -> None:
    """SIGSTOP of an application: health checks take it out, requests that it has wait for SIGCONT, and none fails."""
    web = crew.webs["web1"]
    with crew.load() as seen:
        with frozen(web, web.pid("app")):
            crew.wait(lambda: crew.balancer.view("web1") == "DOWN", "web1 is out", 10)
            assert set(crew.balancer.shares(9)) == {"web2", "web3", "web4"}
        crew.wait(lambda: crew.balancer.view("web1") == "UP", "web1 is back", 10)
    assert seen.failures == []


def test_a_frozen_agent_of_a_web_application_costs_no_request(crew: Crew) -> None:
    """SIGSTOP of a web application's Serf until it has been given up, then SIGCONT: it is served all the time."""
    web = crew.webs["web1"]
    with crew.load() as seen:
        with frozen(web, web.pid("serf")):
            crew.wait(lambda: crew.balancer.members("failed") == {"web1"}, "Serf has given web1 up", FAIL_S)
            crew.balancer.wait_servers(*crew.webs)
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs)
    assert seen.failures == []


def _in_flight(crew: Crew, name: str) -> int:
    """Return the requests that HAProxy has at a server at this moment."""
    return int(crew.balancer.column("scur")[name])


def _pid(crew: Crew, process: str) -> int:
    """Return the id of a process of the balancer: HAProxy's worker or a supervised one."""
    return worker_pid(crew.balancer) if process == "worker" else crew.balancer.pid(process)
