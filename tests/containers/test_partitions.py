"""Cut networks and frozen processes under load: the rest keeps serving, and everything recovers by itself.

LONG_CUTS=1 runs cuts of all lengths. Otherwise each test cuts once, because Serf needs minutes to find the nodes again.
"""

import os
import time
from collections.abc import Callable

import pytest

from containers.cluster import BACK_S, FAIL_S
from containers.crew import CLIENTS, Crew
from containers.faults import EVERYTHING, GOSSIP, beyond, frozen, wall, worker_pid

LENGTHS_S = {"5 s": 5.0, "30 s": 30.0, "until failed": None}
IS_LONG = bool(os.environ.get("LONG_CUTS"))
SOON_S = 5.0
GRACE_S = 10  # the image's SERF_HAPROXY_FAILED_GRACE_S


@pytest.fixture(autouse=True)
def _netfilter(netfilter: None) -> None:
    """Build the image that `wall` needs."""


@pytest.mark.parametrize(
    ("names", "length"),
    [
        (names, length)
        for names, usual in ((("web1",), "5 s"), (("web3", "web4"), "until failed"))
        for length in (LENGTHS_S if IS_LONG else (usual,))
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} of 4",
)
def test_a_cut_off_web_application_loses_only_its_requests_in_flight(
    crew: Crew, names: tuple[str, ...], length: str
) -> None:
    """When web applications are cut off, only their requests in flight can fail; afterwards they serve again."""
    cut = [crew.webs[name] for name in names]
    with crew.load() as seen:
        with crew.fault(f"cut off {len(cut)} of {len(crew.webs)}, {length}"), wall(cut, beyond(cut)):
            started_s = time.monotonic()
            crew.wait(
                lambda: {crew.balancer.view(name) for name in names} <= {"", "MAINT", "DOWN"}, "they get no requests"
            )
            in_flight = sum(_in_flight(crew, name) for name in names)
            _last(crew, started_s, length, lambda: crew.balancer.members("failed") == set(names))
            # The load's requests come in between, so not every server gets one of these few requests.
            assert crew.balancer.shares(10).keys() <= crew.webs.keys() - names
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)
        before = seen.nodes.copy()
        addresses = [web.address for web in cut]
        crew.wait(lambda: all(seen.nodes[each] > before[each] + 10 for each in addresses), "requests to all of them")
    assert len(seen.failures) <= (0 if length == "5 s" else in_flight)


@pytest.mark.parametrize("length", LENGTHS_S if IS_LONG else ("until failed",))
def test_a_cut_off_balancer_serves_again_within_seconds(crew: Crew, length: str) -> None:
    """After a balancer was cut off from all nodes, it serves within seconds, and finally all nodes.

    It may have removed the nodes that failed first: the loss of one or two of four is no mass loss.
    """
    lb1, web1 = crew.balancer, crew.webs["web1"]
    with crew.load() as seen:
        with crew.fault(f"cut off the balancer, {length}", is_haproxy_away=True), wall([lb1], EVERYTHING):
            started_s = time.monotonic()
            have_failed = lambda: lb1.members("failed") == set(crew.webs) and web1.members("failed") == {"lb1"}  # noqa: E731
            _last(crew, started_s, length, have_failed)
        crew.wait(lambda: "UP" in (lb1.views() or {}).values(), "at least one server is up", SOON_S)
        assert lb1.shares(10).keys() <= crew.webs.keys()
        # The clients may still wait for packets that were lost during the cut.
        since = seen.ok_count
        crew.wait(lambda: seen.ok_count > since + 100, "requests afterwards")
        crew.wait_members()
        lb1.wait_servers(*crew.webs, timeout_s=FAIL_S)
    # Requests lost during the cut may time out later. No other request may fail.
    late = [seen.failures[at] for at, at_s in enumerate(seen.failures.times_s) if at_s > crew.healed_s + SOON_S]
    assert [failure for failure in late if "Timeout" not in failure] == []


def test_a_balancer_cut_off_from_the_gossip_keeps_its_servers(crew: Crew) -> None:
    """While the balancer's Serf packets are lost until it marks all nodes as failed, all servers stay."""
    with crew.load() as seen:
        with crew.fault("cut off the balancer's gossip"), wall([crew.balancer], GOSSIP):
            crew.wait(
                lambda: crew.balancer.members("failed") == set(crew.webs), "Serf has marked all as failed", BACK_S
            )
            time.sleep(GRACE_S + 2)
            crew.balancer.wait_servers(*crew.webs)
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs, timeout_s=FAIL_S)
    assert seen.failures == []


@pytest.mark.parametrize(("process", "frozen_s"), [("daemon", 3), ("serf", 6), ("haproxy", 3), ("worker", 3)])
def test_a_frozen_process_of_the_balancer_catches_up(crew: Crew, process: str, frozen_s: float) -> None:
    """While a process is stopped, no request fails; afterwards the daemon applies the changes made meanwhile."""
    pid = _pid(crew, process)
    with crew.load() as seen:
        with crew.fault(f"freeze {process} of the balancer"), frozen(crew.balancer, pid):
            crew.webs["web1"].serf("tags", "-set", "weight=7")
            before = seen.ok_count
            time.sleep(frozen_s)
            assert (seen.ok_count <= before + CLIENTS) == (process == "worker")
        crew.wait(lambda: crew.balancer.column("weight")["web1"] == "7", "web1's new weight", FAIL_S)
        crew.webs["web1"].serf("tags", "-delete", "weight")
        crew.wait(lambda: crew.balancer.column("weight")["web1"] == "1", "web1's old weight", FAIL_S)
    assert seen.failures == []
    # A pass whose commands met the frozen worker may take a reload as soon as it answers.
    assert process == "worker" or _pid(crew, process) == pid


def test_a_frozen_application_gets_no_requests_until_it_continues(crew: Crew) -> None:
    """Health checks take a stopped application out, its requests wait for SIGCONT, and none fails."""
    web = crew.webs["web1"]
    with crew.load() as seen:
        with crew.fault("freeze app of a web application"), frozen(web, web.pid("app")):
            crew.wait(lambda: crew.balancer.view("web1") == "DOWN", "web1 is down", 10)
            assert crew.balancer.shares(9).keys() <= {"web2", "web3", "web4"}
        crew.wait(lambda: crew.balancer.view("web1") == "UP", "web1 is back", 10)
    assert seen.failures == []


def test_a_frozen_serf_agent_of_a_web_application_costs_no_request(crew: Crew) -> None:
    """A web application whose Serf agent is stopped until Serf marks it as failed keeps serving."""
    web = crew.webs["web1"]
    with crew.load() as seen:
        with crew.fault("freeze serf of a web application"), frozen(web, web.pid("serf")):
            crew.wait(lambda: crew.balancer.members("failed") == {"web1"}, "Serf has marked web1 as failed", FAIL_S)
            crew.balancer.wait_servers(*crew.webs)
        crew.wait_members()
        crew.balancer.wait_servers(*crew.webs)
    assert seen.failures == []


def _last(crew: Crew, started_s: float, length: str, have_failed: Callable[[], bool]) -> None:
    """Wait until a fault has lasted for its length: some seconds, or until Serf has marked the nodes as failed."""
    if LENGTHS_S[length] is None:
        crew.wait(have_failed, "Serf has marked them as failed", BACK_S)
    else:
        time.sleep(max(0.0, started_s + LENGTHS_S[length] - time.monotonic()))


def _in_flight(crew: Crew, name: str) -> int:
    """Return how many requests HAProxy has in flight at a server."""
    return int(crew.balancer.column("scur")[name])


def _pid(crew: Crew, process: str) -> int:
    """Return the id of a process of the balancer: HAProxy's worker or a supervised process."""
    return worker_pid(crew.balancer) if process == "worker" else crew.balancer.pid(process)
