"""Kills, freezes, cut networks and restarts: the state comes right, and requests fail only while HAProxy is away."""

import time
from collections.abc import Iterator

import pytest
import requests

from containers.cluster import FAIL_S, Balancer, Cluster, Container
from integration.load import Load, run_load
from integration.proxy import wait_for


@pytest.fixture(scope="module")
def webs(cluster: Cluster, balancer: Balancer) -> dict[str, Container]:
    """Return three web applications that are served."""
    webs = {name: cluster.webapp(name) for name in ("web1", "web2", "web3")}
    balancer.wait_servers(*webs)
    return webs


@pytest.fixture(autouse=True)
def steady(balancer: Balancer, webs: dict[str, Container]) -> Iterator[None]:
    """See that every test leaves the cluster whole and the resident without anything to do."""
    yield
    balancer.wait_servers(*webs, timeout_s=FAIL_S)
    wait_for(balancer.is_right, "the resident has nothing to do")
    assert set(balancer.shares(12)) == set(webs)


def kill(container: Container, service: str) -> None:
    """Send SIGKILL to a supervised process and wait until another one is ready in its place."""
    before = container.pid(service)
    container.exec("s6-svc", "-k", f"/run/service/{service}")
    wait_for(lambda: container.pid(service) not in (before, -1), f"{service} is back")
    if not service.endswith("/log"):
        container.exec("s6-svwait", "-U", "-t", "15000", f"/run/service/{service}")


@pytest.mark.parametrize("service", ["agent", "serf", "haproxy/log", "agent/log", "serf/log"])
def test_a_killed_process_of_the_balancer_costs_no_request(balancer: Balancer, service: str) -> None:
    """SIGKILL of anything but HAProxy: the container lives, the process is back, and nobody notices."""
    with run_load(Load(balancer.address, 80, think_s=0.05), 10) as seen:
        wait_for(lambda: seen.ok_count > 20, "the load runs")
        kill(balancer, service)
        since = seen.ok_count
        wait_for(lambda: seen.ok_count > since + 50, "requests afterwards")
    assert seen.failures == []
    assert balancer.state["Running"]


def test_a_killed_haproxy_is_back_at_once(balancer: Balancer) -> None:
    """SIGKILL of HAProxy: requests fail while it is away, and only then; the container lives."""
    with run_load(Load(balancer.address, 80, think_s=0.05), 10) as seen:
        wait_for(lambda: seen.ok_count > 20, "the load runs")
        started_s = time.monotonic()
        kill(balancer, "haproxy")
        away_s = time.monotonic() - started_s
        failed_count, since = len(seen.failures), seen.ok_count
        wait_for(lambda: seen.ok_count > since + 100, "requests afterwards")
        assert len(seen.failures) == failed_count
    assert away_s < 5
    assert balancer.state["Running"]


@pytest.mark.parametrize("service", ["app", "serf"])
def test_a_killed_process_of_a_web_application_costs_no_request(
    balancer: Balancer, webs: dict[str, Container], service: str
) -> None:
    """SIGKILL of the application or its agent: other servers answer meanwhile, and it comes back by itself."""
    with run_load(Load(balancer.address, 80, think_s=0.05), 10) as seen:
        wait_for(lambda: seen.ok_count > 20, "the load runs")
        kill(webs["web1"], service)
        balancer.wait_servers(*webs, timeout_s=FAIL_S)
    assert seen.failures == []


def test_a_frozen_container_is_left_out_until_it_thaws(balancer: Balancer, webs: dict[str, Container]) -> None:
    """`docker pause`: health checks take it out within seconds; after `docker unpause` it serves again."""
    webs["web2"].engine("pause", webs["web2"].id)
    try:
        wait_for(lambda: balancer.view("web2") in ("", "DOWN"), "web2 is out", 10)
        assert set(balancer.shares(10)) == {"web1", "web3"}
    finally:
        webs["web2"].engine("unpause", webs["web2"].id)


def test_a_cut_network_is_healed(cluster: Cluster, balancer: Balancer, webs: dict[str, Container]) -> None:
    """`docker network disconnect` until Serf has given the node up; then `connect`, at another address, brings it back.

    Its former address belongs to somebody else by then.
    """
    web, before = webs["web3"], webs["web3"].address
    web.engine("network", "disconnect", cluster.network, web.id)
    wait_for(lambda: balancer.view("web3") == "", "web3 is out", FAIL_S)
    assert set(balancer.shares(10)) == {"web1", "web2"}
    heir = cluster.webapp("heir")
    assert heir.address == before
    web.engine("network", "connect", "--alias=web3", cluster.network, web.id)
    assert web.address not in ("", before)
    balancer.wait_servers(*webs, "heir", timeout_s=2 * FAIL_S)  # Serf remembers an address for 30 s
    heir.stop()
    cluster.remove(heir)


def test_a_killed_container_goes_and_its_successor_comes(
    cluster: Cluster, balancer: Balancer, webs: dict[str, Container]
) -> None:
    """`docker kill` under load: no request fails; a container of the same name is served once Serf lets it."""
    with run_load(Load(balancer.address, 80, think_s=0.05), 10) as seen:
        wait_for(lambda: seen.ok_count > 20, "the load runs")
        webs["web1"].engine("kill", webs["web1"].id)
        wait_for(lambda: balancer.view("web1") == "", "web1 is out", FAIL_S)
        cluster.remove(webs["web1"])
        webs["web1"] = cluster.webapp("web1")
        balancer.wait_servers(*webs, timeout_s=FAIL_S)
    assert seen.failures == []


def test_a_restarted_balancer_serves_what_is_there(balancer: Balancer, webs: dict[str, Container]) -> None:
    """`docker restart` of the balancer: from its first answer on it serves; nobody has to tell it anything."""
    balancer.engine("restart", balancer.id)
    url = balancer.url()
    wait_for(lambda: _answers(url), "an answer of any kind")
    assert requests.get(url, timeout=10).status_code == 200
    balancer.wait_servers(*webs)


def test_a_balancer_with_another_address_is_found(
    cluster: Cluster, balancer: Balancer, webs: dict[str, Container]
) -> None:
    """The balancer's address changes while it is stopped: after its start it serves everybody again."""
    before = balancer.address
    balancer.stop()
    balancer.engine("network", "disconnect", cluster.network, balancer.id)
    squatter = cluster.webapp("web4", join="web1 web2")
    balancer.engine("network", "connect", "--alias=lb1", cluster.network, balancer.id)
    balancer.engine("start", balancer.id)
    assert squatter.address == before
    assert balancer.address not in ("", before)
    balancer.wait_servers(*webs, "web4", timeout_s=FAIL_S)
    squatter.stop()
    cluster.remove(squatter)


def _answers(url: str) -> bool:
    try:
        requests.get(url, timeout=10)
    except requests.RequestException:
        return False
    return True
