"""Orders in containers: another user for Serf than for the daemon, a secret of the balancers' own, an empty /run."""

import json
from pathlib import Path

from containers.cluster import BACK_S, FAIL_S, Balancer
from containers.conftest import MakeCluster
from integration.proxy import wait_for

SECRET = "correct horse battery staple"
USER = "serf-haproxy"


def order(balancer: Balancer, *words: str) -> str:
    """Run a command of ours as the daemon's user."""
    return balancer.exec("serf-haproxy", *words, user=USER)


def states(balancer: Balancer) -> dict[str, str]:
    """Return the state of each node."""
    status = balancer.exec("serf-haproxy", "status", "--json", user=USER, is_checked=False)  # its code is its judgement
    members = json.loads(status)["members"]
    return {member["name"]: member["state"] for member in members}


def test_orders_count_on_all_balancers_and_outlive_a_container(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """An order of one balancer counts on the other, also after a restart of its container, which empties /run."""
    path = tmp_path / "orders"
    path.write_text(SECRET + "\n")
    path.chmod(0o644)
    option = f"--volume={path}:/run/secrets/orders:ro"
    with make_cluster() as cluster:
        where = {"SERF_HAPROXY_ORDERS_SECRET_FILE": "/run/secrets/orders"}
        first = cluster.balancer("lb1", option, **where)
        second = cluster.balancer("lb2", option, SERF_JOIN="lb1", **where)
        cluster.webapps("web1", "web2")
        for balancer in (first, second):
            balancer.wait_servers("web1", "web2")
        order(first, "maint", "set", "web1", "--stop", "--reason", "disk swap")
        for balancer in (first, second):
            wait_for(lambda lb=balancer: states(lb)["web1"] == "stopped", "both stop web1", FAIL_S)
            balancer.wait_servers("web2")
        cluster.engine("restart", second.id)
        second.wait_servers("web2", timeout_s=BACK_S)
        assert states(second)["web1"] == "stopped"
        order(second, "maint", "unset", "web1")
        for balancer in (first, second):
            wait_for(lambda lb=balancer: "web1" in (lb.views() or {}), "web1 is back", FAIL_S)
        for balancer in (first, second):
            assert SECRET not in balancer.log() + balancer.spy("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
