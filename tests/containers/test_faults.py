"""Kills, freezes, cut networks and restarts: the state comes right, and requests fail only while HAProxy is away."""

import time

import pytest
import requests

from containers.cluster import BACK_S, FAIL_S
from containers.crew import CLIENTS, Crew
from containers.faults import kill
from integration.proxy import wait_for


@pytest.mark.parametrize("service", ["agent", "serf", "haproxy/log", "agent/log", "serf/log"])
def test_a_killed_process_of_the_balancer_costs_no_request(crew: Crew, service: str) -> None:
    """SIGKILL of anything but HAProxy: the container lives, the process is back, and nobody notices."""
    with crew.load() as seen:
        kill(crew.balancer, service)
        since = seen.ok_count
        wait_for(lambda: seen.ok_count > since + 50, "requests afterwards")
    assert seen.failures == []
    assert crew.balancer.state["Running"]


def test_a_killed_haproxy_is_back_at_once(crew: Crew) -> None:
    """SIGKILL of HAProxy: requests fail while it is away, and only then; the container lives."""
    with crew.load() as seen:
        started_s = time.monotonic()
        kill(crew.balancer, "haproxy")
        away_s = time.monotonic() - started_s
        failed_count, since = len(seen.failures), seen.ok_count
        wait_for(lambda: seen.ok_count > since + 100, "requests afterwards")
        assert len(seen.failures) == failed_count
    assert away_s < 5
    assert crew.balancer.state["Running"]


@pytest.mark.parametrize("service", ["app", "serf"])
def test_a_killed_process_of_a_web_application_costs_no_request(crew: Crew, service: str) -> None:
    """SIGKILL of the application or its agent: other servers answer meanwhile, and it comes back by itself."""
    with crew.load() as seen:
        kill(crew.webs["web1"], service)
        crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)
    assert seen.lost == []
    assert len(seen.failures) <= (CLIENTS if service == "app" else 0)


def test_a_frozen_container_is_left_out_until_it_thaws(crew: Crew) -> None:
    """`docker pause`: health checks take it out within seconds; after `docker unpause` it serves again."""
    web = crew.webs["web2"]
    web.engine("pause", web.id)
    try:
        wait_for(lambda: crew.balancer.view("web2") in ("", "DOWN"), "web2 is out", 10)
        assert set(crew.balancer.shares(10)) == {"web1", "web3", "web4"}
    finally:
        web.engine("unpause", web.id)


def test_a_cut_network_is_healed(crew: Crew) -> None:
    """`docker network disconnect` until Serf has given the node up; then `connect`, at another address, brings it back.

    Its former address belongs to somebody else by then.
    """
    web, before, network = crew.webs["web3"], crew.webs["web3"].address, crew.cluster.network
    web.engine("network", "disconnect", network, web.id)
    wait_for(lambda: crew.balancer.has_given_up("web3"), "web3 is out", FAIL_S)
    assert set(crew.balancer.shares(10)) == {"web1", "web2", "web4"}
    with crew.cluster.holding("heir", before) as heir:
        web.engine("network", "connect", "--alias=web3", network, web.id)
        assert (heir.address, web.address != before) == (before, True)
        crew.balancer.wait_servers(*crew.webs, "heir", timeout_s=BACK_S)


def test_a_killed_container_goes_and_its_successor_comes(crew: Crew) -> None:
    """`docker kill` under load: no request fails; a container of the same name and address is served in its place."""
    before = crew.webs["web1"].address
    with crew.load() as seen:
        crew.webs["web1"].engine("kill", crew.webs["web1"].id)
        wait_for(lambda: crew.balancer.has_given_up("web1"), "web1 is out", FAIL_S)
        crew.cluster.remove(crew.webs["web1"])
        crew.webs["web1"] = crew.cluster.webapp("web1", f"--ip={before}")
        crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)
    assert seen.lost == []


def test_a_restarted_balancer_serves_what_is_there(crew: Crew) -> None:
    """`docker restart` of the balancer: from its first answer on it serves; nobody has to tell it anything."""
    crew.balancer.engine("restart", crew.balancer.id)
    url = crew.balancer.url()
    wait_for(lambda: _answers(url), "an answer of any kind")
    assert requests.get(url, timeout=10).status_code == 200
    crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)


def test_a_balancer_with_another_address_is_found(crew: Crew) -> None:
    """The balancer's address changes while it is stopped: after its start it serves everybody again."""
    balancer, before = crew.balancer, crew.balancer.address
    balancer.stop()
    balancer.engine("network", "disconnect", crew.cluster.network, balancer.id)
    with crew.cluster.holding("squatter", before, join="web1 web2") as squatter:
        balancer.engine("network", "connect", "--alias=lb1", crew.cluster.network, balancer.id)
        balancer.engine("start", balancer.id)
        assert squatter.address == before
        assert balancer.address not in ("", before)
        balancer.wait_servers(*crew.webs, "squatter", timeout_s=BACK_S)


def _answers(url: str) -> bool:
    try:
        requests.get(url, timeout=10)
    except requests.RequestException:
        return False
    return True
