"""A cluster finds itself again: new addresses, new names, kept volumes, restarts."""

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from containers.cluster import FAIL_S, Balancer, Cluster
from containers.conftest import MakeCluster
from integration.proxy import wait_for

REJOIN_S = 40.0  # seconds on an idle machine
STATE = "/var/lib/serf-haproxy"


@pytest.fixture
def rejoining(make_cluster: MakeCluster) -> Iterator[Cluster]:
    """Yield a cluster of web1 and web2, which join lb1; there is no balancer yet."""
    with make_cluster() as cluster:
        cluster.webapps("web1", "web2", join="lb1 web1")
        yield cluster


@contextlib.contextmanager
def volume(cluster: Cluster, name: str) -> Iterator[str]:
    """Make a volume for the duration of a block; yield the option that mounts it."""
    tag = f"{cluster.network}-{name}"
    cluster.engine("volume", "create", f"--label={cluster.engine.label}", tag)
    yield f"--volume={tag}:{STATE}"  # the engine removes it with all others of this test run


def conditions(balancer: Balancer) -> set[str]:
    """Return the names of the conditions of the last pass."""
    said = balancer.exec("serf-haproxy", "status", "--json", user="serf-haproxy", is_checked=False)
    return {condition["name"] for condition in json.loads(said)["conditions"]}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_new_balancer_at_another_address_is_found(rejoining: Cluster, end: str) -> None:
    """A balancer that is removed and started anew, elsewhere and knowing nothing, serves the nodes that join lb1."""
    first = rejoining.balancer("lb1")
    first.wait_servers("web1", "web2")
    address = first.address
    rejoining.engine(end, first.id)
    rejoining.remove(first)
    with rejoining.holding("holder", address, join="web1"):
        second = rejoining.balancer("lb1")
        assert second.address != address
        second.wait_servers("web1", "web2", "holder", timeout_s=REJOIN_S)
    wait_for(lambda: conditions(second) == set(), "nothing is wrong", FAIL_S)


def test_a_kept_volume_under_a_new_name_leads_back(rejoining: Cluster) -> None:
    """A balancer with the volume and the address of its predecessor, but another name, finds the cluster by itself."""
    with volume(rejoining, "kept") as kept:
        first = rejoining.balancer("lb1", kept)
        first.wait_servers("web1", "web2")
        address = first.address
        first.stop()
        rejoining.containers.remove(first)
        rejoining.engine("rm", "--force", first.id)
        second = rejoining.balancer("lb2", kept, f"--ip={address}")  # nobody joins lb2, and it joins nobody
        second.wait_servers("web1", "web2", timeout_s=REJOIN_S)
        wait_for(lambda: second.members("alive") == {"lb2", "web1", "web2"}, second.story, REJOIN_S)
        wait_for(lambda: conditions(second) == set(), "nothing is wrong", FAIL_S)


def test_a_balancer_that_lost_its_cluster_says_so(rejoining: Cluster) -> None:
    """With a kept volume and no living member left, `status` has the condition alone and the container is unhealthy."""
    with volume(rejoining, "lost") as kept:
        first = rejoining.balancer("lb1", kept)
        first.wait_servers("web1", "web2")
        assert first.exec("/health") == ""
        rejoining.engine("kill", *(container.id for container in rejoining.containers))
        rejoining.containers.remove(first)
        rejoining.engine("rm", "--force", first.id)
        second = rejoining.balancer("lb2", kept, "--health-interval=1s", SERF_JOIN="web1")
        wait_for(lambda: "alone" in conditions(second), second.story, FAIL_S)
        wait_for(lambda: second.state["Health"]["Status"] == "unhealthy", "it is unhealthy", FAIL_S)
        shown = second.exec("serf-haproxy", "status", user="serf-haproxy", is_checked=False)
        assert "alone: Serf knows no other member" in shown
        rejoining.webapp("web3", join="lb2")
        wait_for(lambda: second.is_healthy and "alone" not in conditions(second), second.story, REJOIN_S)


def test_a_balancer_whose_others_have_left_is_healthy(rejoining: Cluster) -> None:
    """After all web applications have left, the balancer is not alone: it was told that they go.

    The last ones may be held, or be the last resort as long as HAProxy has not seen them down.
    """
    balancer = rejoining.balancer("lb1")
    balancer.wait_servers("web1", "web2")
    webs = [container for container in rejoining.containers if container is not balancer]
    stops = [threading.Thread(target=web.stop) for web in webs]
    for stop in stops:
        stop.start()
    for stop in stops:
        stop.join(60)
    wait_for(lambda: balancer.members("left") == {"web1", "web2"}, balancer.story, FAIL_S)
    assert conditions(balancer) <= {"held", "last"}
    assert balancer.exec("/health") == ""


def watch(place: tuple[str, int], is_over: threading.Event, answered_s: list[float]) -> None:
    """Note when a port accepts connections."""
    while not is_over.is_set():
        with contextlib.suppress(OSError), socket.create_connection(place, 0.1):
            answered_s.append(time.monotonic())
        time.sleep(0.01)


def test_haproxy_goes_last_when_a_balancer_stops(rejoining: Cluster) -> None:
    """While a balancer stops, HAProxy answers until Serf has left, and clients of two balancers lose nothing."""
    first, second = rejoining.balancer("lb1"), rejoining.balancer("lb2", SERF_JOIN="lb1")
    for balancer in (first, second):
        balancer.wait_servers("web1", "web2")
    urls, failures, answered_s = [first.url(), second.url()], [], [time.monotonic()]
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                answer = requests.get(urls[0], headers={"Connection": "close"}, timeout=10)
            except requests.ConnectionError as error:
                if "Connection refused" not in str(error) and "No route" not in str(error):
                    failures.append(str(error))
                answer = requests.get(urls[1], headers={"Connection": "close"}, timeout=10)
            if answer.status_code != 200:
                failures.append(str(answer.status_code))

    threads = [
        threading.Thread(target=ask),
        threading.Thread(target=watch, args=((first.address, 80), is_over, answered_s)),
    ]
    for thread in threads:
        thread.start()
    try:
        first.engine("restart", first.id)
        first.wait_servers("web1", "web2")
    finally:
        is_over.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    away_s = max(later - earlier for earlier, later in itertools.pairwise(answered_s))
    print(f"HAProxy was away for {away_s:.2f} s")
    lines = first.log().splitlines()
    leaving = next(at for at, line in enumerate(lines) if "Gracefully shutting down agent" in line)
    stopping = next(at for at, line in enumerate(lines) if line.startswith("haproxy:") and "topp" in line)
    # On a busy machine Serf gives up leaving after 3 s, and ends without this line.
    left = [at for at, line in enumerate(lines) if "agent: shutdown complete" in line]
    assert all(at < stopping for at in [leaving, *left]), "\n".join(lines[leaving - 5 : stopping + 5])
