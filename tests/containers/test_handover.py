"""The stop of a balancer that gives its traffic away first, in a real container."""

import threading

import requests

from containers.cluster import FAIL_S
from containers.conftest import MakeCluster
from integration.proxy import wait_for

CHECK = "/opt/serf-haproxy/handlers/ready_for_traffic"
HANDOVER_S = 4


def test_a_stop_gives_the_traffic_away_first(make_cluster: MakeCluster) -> None:
    """While the check fails the balancer serves on; after a restart it is ready again."""
    with make_cluster() as cluster:
        balancer = cluster.balancer("lb1", HANDOVER_S=str(HANDOVER_S), SERF_JOIN="web1")
        cluster.webapp("web1")
        balancer.wait_servers("web1")

        def look() -> str:
            return balancer.exec(CHECK, user="serf-haproxy", is_checked=False).strip()

        wait_for(lambda: look() == "ready", look, FAIL_S)
        took_s: list[float] = []
        stopping = threading.Thread(target=lambda: took_s.append(balancer.stop("--time=30")))
        stopping.start()
        wait_for(lambda: look() == "not ready: HAProxy is about to be stopped", look, HANDOVER_S)
        assert requests.get(balancer.url(), timeout=5).ok
        stopping.join(60)
        assert took_s[0] > HANDOVER_S
        assert balancer.state["ExitCode"] == 0
        balancer.engine("start", balancer.id)
        wait_for(lambda: look() == "ready", look, FAIL_S)
