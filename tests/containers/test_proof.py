"""The proof of membership: the images make it, the balancer checks it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.cluster import Cluster
from containers.conftest import MakeCluster
from integration.proxy import wait_for

SECRET = "correct horse battery staple"


@pytest.fixture
def proof_cluster(make_cluster: MakeCluster) -> Iterator[Cluster]:
    """Yield an empty cluster."""
    with make_cluster() as cluster:
        yield cluster


def test_only_nodes_with_the_secret_are_served(proof_cluster: Cluster, tmp_path: Path) -> None:
    """A web application with the secret is served; without it, or with another one, it is quarantined."""
    options = {}
    for name, text in (("right", SECRET), ("wrong", SECRET[::-1])):
        path = tmp_path / name
        path.write_text(text + "\n")
        path.chmod(0o644)
        options[name] = f"--volume={path}:/run/secrets/proof:ro"
    where = {"SERF_PROOF_SECRET_FILE": "/run/secrets/proof"}
    balancer = proof_cluster.balancer(
        "lb1", options["right"], SERF_HAPROXY_PROOF_SECRET_FILE="/run/secrets/proof", SERF_HAPROXY_FLAP_CUTOFF="0"
    )
    web = proof_cluster.webapp("web1", options["right"], **where)
    proof_cluster.webapp("web2")
    proof_cluster.webapp("web3", options["wrong"], **where)
    for name in ("web2", "web3"):
        wait_for(lambda name=name: f"node {name} is quarantined" in balancer.log(), f"{name} is quarantined", 30)
    balancer.wait_servers("web1")
    assert SECRET not in balancer.log() + web.log() + web.spy("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
