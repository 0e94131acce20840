"""Kills, freezes, cut networks and restarts: all recover, and requests fail only while HAProxy is down."""

import contextlib

import pytest
import requests

from containers.cluster import BACK_S, FAIL_S
from containers.crew import CLIENTS, Crew
from containers.faults import kill, list_zombies
from integration.proxy import wait_for


@pytest.mark.parametrize(
    "service", ["daemon", "serf", "address", "haproxy/log", "daemon/log", "serf/log", "address/log"]
)
def test_a_killed_process_of_the_balancer_costs_no_request(crew: Crew, service: str) -> None:
    """After SIGKILL of any process except HAProxy, it is restarted and no request fails."""
    with crew.load() as seen:
        with crew.fault(f"kill {service} of the balancer"):
            kill(crew.balancer, service)
        since = seen.ok_count
        wait_for(lambda: seen.ok_count > since + 50, "requests after the fault")
    assert seen.failures == []
    assert crew.balancer.state["Running"]
    crew.wait(lambda: not list_zombies(crew.balancer), "there is no zombie process")


def test_a_killed_haproxy_is_restarted_at_once(crew: Crew) -> None:
    """After SIGKILL of HAProxy, requests fail only until it is restarted; the container keeps running."""
    with crew.load() as seen:
        with crew.fault("kill haproxy of the balancer", is_haproxy_away=True):
            kill(crew.balancer, "haproxy")
        failed_s, since = seen.failures.times_s, seen.ok_count
        failed_count = len(failed_s)
        wait_for(lambda: seen.ok_count > since + 100, "requests after the fault")
        assert len(failed_s) == failed_count
    assert max(failed_s, default=0) - min(failed_s, default=0) < 5
    assert crew.balancer.state["Running"]
    crew.wait(lambda: not list_zombies(crew.balancer), "there is no zombie process")


@pytest.mark.parametrize("service", ["app", "serf", "join"])
def test_a_killed_process_of_a_web_application_costs_no_request(crew: Crew, service: str) -> None:
    """After SIGKILL of a web application's process, the other servers answer and it is restarted."""
    web = crew.webs["web1"]
    with crew.load() as seen:
        with crew.fault(f"kill {service} of a web application"):
            kill(web, service)
        crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)
    assert seen.lost == []
    assert len(seen.failures) <= (CLIENTS if service == "app" else 0)
    crew.wait(lambda: not list_zombies(web), "there is no zombie process")


def test_a_paused_container_gets_no_requests_until_it_continues(crew: Crew) -> None:
    """After `docker pause`, health checks take a server out within seconds; after `unpause` it serves again."""
    web = crew.webs["web2"]

    def pause() -> bool:
        """Return whether the container is paused. On a busy machine runc may give up where processes begin others."""
        web.engine("pause", web.id, is_checked=False)
        return bool(web.state["Paused"])

    with crew.fault("pause a web application"):
        wait_for(pause, "web2 is paused")
        try:
            crew.wait(lambda: crew.balancer.view("web2") in ("", "DOWN"), "web2 is down")
            assert set(crew.balancer.shares(10)) == {"web1", "web3", "web4"}
        finally:
            web.engine("unpause", web.id)


def test_a_disconnected_network_is_recovered(crew: Crew) -> None:
    """A node that was disconnected until Serf marked it as failed is served again at another address.

    Another node has its former address by then.
    """
    web, before, network = crew.webs["web3"], crew.webs["web3"].address, crew.cluster.network
    with contextlib.ExitStack() as stack:
        with crew.fault("disconnect a web application"):
            web.engine("network", "disconnect", network, web.id)
            crew.wait(lambda: crew.balancer.has_given_up("web3"), "web3 is removed", FAIL_S)
            assert set(crew.balancer.shares(10)) == {"web1", "web2", "web4"}
            heir = stack.enter_context(crew.cluster.holding("heir", before))
            web.engine("network", "connect", "--alias=web3", network, web.id)
        assert (heir.address, web.address != before) == (before, True)
        crew.balancer.wait_servers(*crew.webs, "heir", timeout_s=BACK_S)


def test_a_killed_container_is_replaced_by_its_successor(crew: Crew) -> None:
    """After `docker kill` under load no request fails, and a container with the same name and address is served."""
    before = crew.webs["web1"].address
    with crew.load() as seen:
        with crew.fault("kill a web application's container"):
            crew.webs["web1"].engine("kill", crew.webs["web1"].id)
            crew.wait(lambda: crew.balancer.has_given_up("web1"), "web1 is removed", FAIL_S)
            crew.cluster.remove(crew.webs["web1"])
            crew.webs["web1"] = crew.cluster.webapp("web1", f"--ip={before}")
        crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)
    assert seen.lost == []


def test_a_restarted_balancer_serves_all_servers(crew: Crew) -> None:
    """After `docker restart` of the balancer, its first answer comes from a web application."""
    with crew.fault("restart the balancer's container", is_haproxy_away=True):
        crew.balancer.engine("restart", crew.balancer.id)
    statuses: list[int] = []
    url = crew.balancer.url()
    wait_for(lambda: statuses or _ask(url, statuses), "an answer of any kind")
    assert statuses == [200]
    crew.balancer.wait_servers(*crew.webs, timeout_s=BACK_S)


def test_a_balancer_with_another_address_serves_again(crew: Crew) -> None:
    """A balancer whose address changed while it was stopped serves all servers again after its start."""
    balancer, before = crew.balancer, crew.balancer.address
    with contextlib.ExitStack() as stack:
        with crew.fault("give the balancer another address", is_haproxy_away=True):
            balancer.stop()
            balancer.engine("network", "disconnect", crew.cluster.network, balancer.id)
            squatter = stack.enter_context(crew.cluster.holding("squatter", before, join="web1 web2"))
            balancer.engine("network", "connect", "--alias=lb1", crew.cluster.network, balancer.id)
            balancer.engine("start", balancer.id)
        assert squatter.address == before
        assert balancer.address not in ("", before)
        balancer.wait_servers(*crew.webs, "squatter", timeout_s=BACK_S)


def _ask(url: str, statuses: list[int]) -> None:
    """Make one request and append the status of the answer, if there is one."""
    with contextlib.suppress(requests.RequestException):
        statuses.append(requests.get(url, timeout=10).status_code)
