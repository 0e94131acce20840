"""Cut networks and frozen processes under load: what can still answer does, and what was out comes back by itself.

LONG_CUTS=1 runs cuts of all lengths for each; else each is cut off once, since Serf takes minutes to find them again.
"""

import os
import time
from collections.abc import Callable

import pytest

from containers.cluster import BACK_S, FAIL_S
from containers.crew import CLIENTS, Crew
from containers.faults import EVERYTHING, GOSSIP, beyond, frozen, wall, worker_pid

LENGTHS_S = {"5 s": 5.0, "30 s": 30.0, "until given up": None}
IS_LONG = bool(os.environ.get("LONG_CUTS"))
SOON_S = 5.0
GRACE_S = 10  # SERF_HAPROXY_FAILED_GRACE_S, as it is in the image


@pytest.fixture(autouse=True)
def _netfilter(netfilter: None) -> None:
    """Have what `wall` needs."""


@pytest.mark.parametrize(
    ("names", "length"),
    [
        (names, length)
        for names, usual in ((("web1",), "5 s"), (("web3", "web4"), "until given up"))
        for length in (LENGTHS_S if IS_LONG else (usual,))
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} of 4",
)
def test_a_cut_off_web_application_costs_what_it_had(crew: Crew, names: tuple[str, ...], length: str) -> None:
    """They see only one another: the others answer, only what HAProxy had sent them can fail; healed, they serve."""
    cut = [crew.webs[name] for name in names]
    with crew.load() as seen:
        with crew.fault(f"cut off {len(cut)} of {len(crew.webs)}, {length}"), wall(cut, beyond(cut)):
            started_s = time.monotonic()
            crew.wait(lambda: {crew.balancer.view(name) for name in names} <= {"", "MAINT", "DOWN"}, "they are out")
            in_flight = sum(_in_flight(crew, name) for name in names)
            _last(crew, started_s, length, lambda: crew.balancer.members("failed") == set(names))
            # The clients of the load take turns with us: not every server gets one of so few requests.
            assert crew.balancer.shares(10).keys() <= crew.webs.keys() - names
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)
        before = seen.backends.copy()
        addresses = [web.address for web in cut]
        crew.wait(lambda: all(seen.backends[each] > before[each] + 10 for each in addresses), "requests to all of them")
    assert len(seen.failures) <= (0 if length == "5 s" else in_flight)


@pytest.mark.parametrize("length", LENGTHS_S if IS_LONG else ("until given up",))
def test_a_cut_off_balancer_serves_again_at_once(crew: Crew, length: str) -> None:
    """It reaches nobody, and nobody it: healed, it serves within seconds, and all in the end.

    It may have let go by then whom Serf had given up first: one or two of four are no mass loss.
    """
    lb1, web1 = crew.balancer, crew.webs["web1"]
    with crew.load() as seen:
        with crew.fault(f"cut off the balancer, {length}", is_haproxy_away=True), wall([lb1], EVERYTHING):
            started_s = time.monotonic()
            given_up = lambda: lb1.members("failed") == set(crew.webs) and web1.members("failed") == {"lb1"}  # noqa: E731
            _last(crew, started_s, length, given_up)
        crew.wait(lambda: "UP" in (lb1.views() or {}).values(), "some serve", SOON_S)
        assert lb1.shares(10).keys() <= crew.webs.keys()
        # Our clients may still wait for packets that were lost long ago.
        since = seen.ok_count
        crew.wait(lambda: seen.ok_count > since + 100, "requests afterwards")
        crew.wait_members()
        lb1.wait_servers(*crew.webs, timeout_s=FAIL_S)
    # A request that was lost in the cut may be given up by its client later; nobody is refused any more.
    late = [seen.failures[at] for at, at_s in enumerate(seen.failures.times_s) if at_s > crew.healed_s + SOON_S]
    assert [failure for failure in late if "Timeout" not in failure] == []


def test_a_balancer_cut_off_from_the_gossip_keeps_its_servers(crew: Crew) -> None:
    """Serf's packets to and from the balancer are lost until it has given everybody up: all are served nevertheless."""
    with crew.load() as seen:
        with crew.fault("cut off the balancer's gossip"), wall([crew.balancer], GOSSIP):
            crew.wait(lambda: crew.balancer.members("failed") == set(crew.webs), "Serf has given all up", BACK_S)
            time.sleep(GRACE_S + 2)
            crew.balancer.wait_servers(*crew.webs)
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs, timeout_s=FAIL_S)
    assert seen.failures == []


@pytest.mark.parametrize(("process", "frozen_s"), [("daemon", 3), ("serf", 6), ("haproxy", 3), ("worker", 3)])
def test_a_frozen_process_of_the_balancer_catches_up(crew: Crew, process: str, frozen_s: float) -> None:
    """SIGSTOP, then SIGCONT: requests wait at most, none fails, and what a node said meanwhile counts afterwards."""
    pid = _pid(crew, process)
    with crew.load() as seen:
        with crew.fault(f"freeze {process} of the balancer"), frozen(crew.balancer, pid):
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
        with crew.fault("freeze app of a web application"), frozen(web, web.pid("app")):
            crew.wait(lambda: crew.balancer.view("web1") == "DOWN", "web1 is out", 10)
            assert crew.balancer.shares(9).keys() <= {"web2", "web3", "web4"}
        crew.wait(lambda: crew.balancer.view("web1") == "UP", "web1 is back", 10)
    assert seen.failures == []


def test_a_frozen_agent_of_a_web_application_costs_no_request(crew: Crew) -> None:
    """SIGSTOP of a web application's Serf until it has been given up, then SIGCONT: it is served all the time."""
    web = crew.webs["web1"]
    with crew.load() as seen:
        with crew.fault("freeze serf of a web application"), frozen(web, web.pid("serf")):
            crew.wait(lambda: crew.balancer.members("failed") == {"web1"}, "Serf has given web1 up", FAIL_S)
            crew.balancer.wait_servers(*crew.webs)
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs)
    assert seen.failures == []


def _last(crew: Crew, started_s: float, length: str, are_given_up: Callable[[], bool]) -> None:
    """Wait until a fault has lasted as long as it should: some seconds, or until Serf has given up who is cut off."""
    if LENGTHS_S[length] is None:
        crew.wait(are_given_up, "Serf has given them up", BACK_S)
    else:
        time.sleep(max(0.0, started_s + LENGTHS_S[length] - time.monotonic()))


def _in_flight(crew: Crew, name: str) -> int:
    """Return the requests that HAProxy has at a server at this moment."""
    return int(crew.balancer.column("scur")[name])


def _pid(crew: Crew, process: str) -> int:
    """Return the id of a process of the balancer: HAProxy's worker or a supervised one."""
    return worker_pid(crew.balancer) if process == "worker" else crew.balancer.pid(process)
