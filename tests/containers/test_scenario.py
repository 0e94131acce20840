"""The lab's scenario with containers, checked in HAProxy, with clients and in a browser; and start orders."""

import os
import shutil
import time
from pathlib import Path

import requests

from containers.cluster import BACK_S, FAIL_S, JOIN_S, Balancer, Cluster
from containers.conftest import MakeCluster
from containers.engine import ROOT, need, run
from containers.keys import secret_options
from integration.proxy import wait_for

WEBS = ["web1", "web2", "web3", "web4", "web5"]


def is_even(balancer: Balancer, *names: str) -> bool:
    """Return whether each answers about 20 of 20 requests per name; the counts may differ by 2, for two threads."""
    shares = balancer.shares(20 * len(names))
    return set(shares) == set(names) and max(shares.values()) - min(shares.values()) <= 2


def look(url: str, directory: Path) -> tuple[str, Path]:
    """Open a page in a headless browser; return its DOM as text, and the path of a screenshot."""
    need("chromium")
    picture = directory / "stats.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1500,560", f"--user-data-dir={directory}"]
    run(["chromium", *options, f"--screenshot={picture}", url], 60)
    return run(["chromium", *options, "--dump-dom", url], 60), picture


def test_the_scenario_of_the_lab(cluster: Cluster, balancer: Balancer, tmp_path: Path) -> None:
    """Five, six, then four applications: exactly these are servers, share evenly and are on the stats page."""
    webs = cluster.webapps(*WEBS)
    balancer.wait_servers(*WEBS)
    assert is_even(balancer, *WEBS)
    cluster.webapp("web6")
    balancer.wait_servers(*WEBS, "web6")
    assert is_even(balancer, *WEBS, "web6")
    with requests.Session() as session:
        answers = [session.get(balancer.url(), timeout=10).json() for _ in range(6)]
    # Each request meets another server, which does not know the session of the one before.
    assert [answer["sessionViews"] for answer in answers] == [1] * 6
    assert len({answer["id"] for answer in answers}) == 6
    page, picture = look(f"http://{balancer.address}:1936/", tmp_path)
    assert [name for name in [*WEBS, "web6"] if f">{name}<" not in page] == []
    assert picture.stat().st_size > 10_000
    if os.environ.get("RENEW_SCREENSHOT"):
        shutil.copy(picture, ROOT / "docs" / "stats.png")
    for web in webs[:2]:
        assert web.stop() < 10
        assert web.state["ExitCode"] == 0
    balancer.wait_servers("web3", "web4", "web5", "web6", timeout_s=FAIL_S)
    assert is_even(balancer, "web3", "web4", "web5", "web6")
    page, _ = look(f"http://{balancer.address}:1936/", tmp_path)
    assert [name for name in ("web1", "web2") if f">{name}<" in page] == []


def test_health_follows_the_cluster(make_cluster: MakeCluster) -> None:
    """Balancer and member become healthy; an application that answers but has no cluster does not."""
    often = "--health-interval=1s"
    with make_cluster() as cluster:
        balancer, member = cluster.balancer("lb1", often), cluster.webapp("web1", often)
        alone = cluster.webapp("alone", often, join="missing-host")
        wait_for(lambda: balancer.is_healthy and member.is_healthy, "balancer and member are healthy", JOIN_S)
        alone.exec("s6-svwait", "-U", "/run/service/serf")
        assert requests.get(f"http://{alone.address}:3000/health", timeout=5).ok
        before = {check["Start"] for check in alone.state["Health"]["Log"]}
        wait_for(lambda: len({check["Start"] for check in alone.state["Health"]["Log"]} - before) > 1, "two checks")
        assert not alone.is_healthy
        member.exec("s6-svc", "-d", "/run/service/app")
        wait_for(lambda: member.state["Health"]["Status"] == "unhealthy", "a member without application is unhealthy")


def test_a_balancer_that_does_not_run_the_published_file_is_unhealthy(make_cluster: MakeCluster) -> None:
    """A balancer is unhealthy while HAProxy is down or does not run the published configuration."""
    publish = "SERF_HAPROXY_BALANCE=leastconn serf-haproxy render >/run/config/haproxy.cfg"
    with make_cluster() as cluster:
        balancer = cluster.balancer("lb1", "--health-interval=1s")
        wait_for(lambda: balancer.is_healthy, "it is healthy at first", JOIN_S)
        balancer.exec("s6-svc", "-wD", "-d", "/run/service/daemon")
        balancer.exec("sh", "-c", publish, user="serf-haproxy")
        wait_for(lambda: balancer.state["Health"]["Status"] == "unhealthy", "HAProxy runs something else", JOIN_S)
        balancer.exec("s6-svc", "-wU", "-u", "/run/service/daemon")
        wait_for(lambda: balancer.is_healthy, "the daemon has repaired it", JOIN_S)
        balancer.exec("s6-svc", "-wD", "-d", "/run/service/haproxy")
        wait_for(lambda: balancer.state["Health"]["Status"] == "unhealthy", "HAProxy is down", JOIN_S)


def test_the_balancer_may_start_last(make_cluster: MakeCluster) -> None:
    """A balancer that joins one web application serves all web applications of the cluster."""
    with make_cluster() as cluster:
        cluster.webapps("web1", "web2", join="web1 web2 lb1")
        cluster.balancer(SERF_JOIN="web2").wait_servers("web1", "web2")


def test_all_containers_may_start_at_once(make_cluster: MakeCluster) -> None:
    """Containers that start in any order find each other: names that do not resolve yet are tried again."""
    with make_cluster() as cluster:
        entries = "lb1 web1 web2 never-there"
        cluster.webapp("web1", join=entries)
        balancer = cluster.balancer(SERF_JOIN=entries)
        cluster.webapp("web2", join=entries)
        balancer.wait_servers("web1", "web2")


def test_a_node_that_joined_itself_continues_to_join(make_cluster: MakeCluster) -> None:
    """A node that has joined only itself finds a node that starts later and joins none."""
    with secret_options() as options, make_cluster() as cluster:
        early = cluster.webapp("early", *options, join="early late")
        wait_for(lambda: "Synced with 1 initial agents" in early.log(), "Serf has joined itself")
        wait_for(lambda: "early is alone" in early.log(), "it looks for others")
        time.sleep(8)  # its pauses are as long as they get
        cluster.balancer("late", *options).wait_servers("early", timeout_s=FAIL_S)
        said = [line for line in early.log().splitlines() if line.startswith("join: ")]
        assert len(said) == len(set(said)) <= 4, said  # each thing is said once, however often it looks


def test_a_restarted_container_needs_no_entry_point(make_cluster: MakeCluster) -> None:
    """After the node that all joined has left, a restarted web application and balancer find the cluster again."""
    with make_cluster() as cluster:
        entry = cluster.webapp("entry", join="")
        balancer = cluster.balancer(SERF_JOIN="entry")
        web1, _ = cluster.webapps("web1", "web2", join="entry")
        balancer.wait_servers("entry", "web1", "web2")
        entry.stop()
        cluster.remove(entry)
        balancer.wait_servers("web1", "web2", timeout_s=FAIL_S)
        web1.engine("restart", web1.id)
        balancer.wait_servers("web1", "web2", timeout_s=BACK_S)
        balancer.engine("restart", balancer.id)
        balancer.wait_servers("web1", "web2", timeout_s=BACK_S)
        wait_for(balancer.is_right, "the daemon has nothing to do", FAIL_S)


def test_two_balancers_serve_the_same(make_cluster: MakeCluster) -> None:
    """Two balancers serve the same cluster, and one continues when the other stops."""
    with make_cluster() as cluster:
        first, second = cluster.balancer("lb1"), cluster.balancer("lb2", SERF_JOIN="lb1")
        web1, _ = cluster.webapps("web1", "web2", join="lb1 lb2")
        first.wait_servers("web1", "web2")
        second.wait_servers("web1", "web2")
        assert first.stop() < 10
        web1.stop()
        second.wait_servers("web2", timeout_s=FAIL_S)
