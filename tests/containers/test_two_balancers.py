"""Several balancers write the same configuration, also after a network partition."""

import difflib
import re

import pytest

from containers.cluster import BACK_S, FAIL_S, Balancer
from containers.conftest import MakeCluster
from containers.faults import beyond, wall
from integration.proxy import wait_for


def read_config(balancer: Balancer) -> str:
    """Return the live configuration without what is a balancer's own.

    That is the token that names it, the fingerprint of the whole, and the slower checks of a server that this balancer
    saw down for long: the server keeps their words when it comes up before its node is heard of again.
    """
    text = balancer.exec("cat", "/run/config/haproxy.cfg")
    text, token_count = re.subn(r"(CDN-Loop|-m beg) serf-haproxy-[0-9a-f]{16}", r"\1 TOKEN", text)
    text, mark_count = re.subn(r"description serf-haproxy-[0-9a-f]{16}-[0-9a-f]{16}", "description", text)
    assert (token_count, mark_count) == (3, 1)
    return re.sub(r" downinter \d+ms", "", text)


@pytest.mark.usefixtures("netfilter")
def test_two_balancers_write_the_same_configuration(make_cluster: MakeCluster) -> None:
    """After joins, leaves, tag changes and a partition, both balancers have the same configuration."""
    with make_cluster() as cluster:
        balancers = [cluster.balancer("lb1"), cluster.balancer("lb2", SERF_JOIN="lb1")]
        webs = {f"web{number}": cluster.webapp(f"web{number}") for number in range(1, 6)}

        def compare() -> str:
            lines = [read_config(balancer).splitlines() for balancer in balancers]
            return "\n".join(["identical configurations", *difflib.unified_diff(*lines, lineterm="")])

        def agree(*names: str) -> None:
            for balancer in balancers:
                balancer.wait_servers(*names, timeout_s=FAIL_S)
            wait_for(lambda: len(set(map(read_config, balancers))) == 1, compare, FAIL_S)

        agree(*webs)
        webs["web1"].serf("tags", "-set", "weight=9")
        webs.pop("web5").stop()
        wait_for(lambda: "weight 9" in read_config(balancers[0]), "the weight")
        agree(*webs)
        far = [balancers[1], webs["web4"]]
        with wall(far, beyond(far)):
            wait_for(lambda: balancers[0].members("failed") == {"lb2", "web4"}, "the near half", BACK_S)
            wait_for(lambda: len(balancers[1].members("failed")) == 4, "the far half", BACK_S)
            # The far balancer lost three of four servers at once and holds them.
            wait_for(lambda: "HELD" in balancers[1].log(), "the far half is held", FAIL_S)
            assert all(f" {name} " in read_config(balancers[1]) for name in webs)
        all_nodes = {"lb1", "lb2", *webs}
        for balancer in balancers:
            wait_for(lambda lb=balancer: lb.members("alive") == all_nodes, "all are alive for all", BACK_S)
        agree(*webs)
