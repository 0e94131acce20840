"""Sidecars: beside an application in its network, and for one at another address."""

from pathlib import Path

import pytest
import requests

from containers.applications import NO_RIGHTS, build
from containers.cluster import BACK_S, CONFINED, FAIL_S, Balancer, Cluster, Container
from containers.engine import PREFIX
from integration.proxy import wait_for

SECRET = "correct horse battery staple"
SIDECAR = ("/command/sidecar",)
BESIDE = (*NO_RIGHTS, "--user=1000:1000", "--env=SERF_JOIN=lb1", "--env=APP_PORT=8080", "--env=APP_GRACE_S=0.2")


def start_application(cluster: Cluster, nodes: list[Container], name: str, *options: str) -> Container:
    """Start an application that knows nothing of the cluster; its answer is its name."""
    command = (
        "/busybox",
        "sh",
        "-c",
        f"echo {name} >/www/index.html; trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait",
    )
    application = cluster.start(name, build(cluster.engine, "plain"), *options, command=command)
    nodes.append(application)
    return application


def start_beside(cluster: Cluster, nodes: list[Container], application: Container, *options: str) -> Container:
    """Start a sidecar in the network of an application."""
    where = ("--detach", f"--label={cluster.engine.label}", f"--network=container:{application.id}")
    started = cluster.engine("run", *where, *BESIDE, *options, f"{PREFIX}/node", *SIDECAR)
    sidecar = Container(cluster.engine, application.name, cluster.network, started.split()[-1])
    cluster.containers.append(sidecar)
    nodes.append(sidecar)
    return sidecar


def find_subnet(cluster: Cluster) -> str:
    """Return the subnet of a cluster's network."""
    form = "--format={{(index .IPAM.Config 0).Subnet}}"
    return cluster.engine("network", "inspect", form, cluster.network).strip()


def find_tags(balancer: Balancer, name: str) -> str:
    """Return a member as the balancer's Serf agent shows it, "" while it does not know it."""
    lines = balancer.serf("members", is_checked=False).splitlines()
    return next((line for line in lines if line.startswith(f"{name} ")), "")


@pytest.mark.parametrize("user", ["root", "ordinary"])
@pytest.mark.parametrize("is_proven", [False, True], ids=["open", "proven"])
def test_an_application_at_another_address_is_served(
    cluster: Cluster, nodes: list[Container], tmp_path: Path, is_proven: bool, user: str
) -> None:
    """APP_ADDRESS announces where a name leads, and follows it; a forged tag counts nothing."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o644 if user == "ordinary" else 0o600)
    mount = f"--volume={secret}:/run/secrets/proof:ro"
    options = ["--env=SERF_JOIN=lb1", "--env=APP_PORT=8080", "--env=APP_ADDRESS=shop", "--env=ADDRESS_CHECK_S=1"]
    options += [mount, "--env=SERF_PROOF_SECRET_FILE=/run/secrets/proof"] if is_proven else []
    options += CONFINED if user == "root" else (*NO_RIGHTS, "--user=1000:1000")
    environ = {"SERF_HAPROXY_ADDR_NETWORKS": find_subnet(cluster), "SERF_HAPROXY_FLAP_CUTOFF": "0"}
    lent = tmp_path / "lent"
    lent.write_text(f"{SECRET}\n")
    lent.chmod(0o644)
    where = f"--volume={lent}:/run/secrets/proof:ro"
    proven = {"SERF_HAPROXY_PROOF_SECRET_FILE": "/run/secrets/proof"} if is_proven else {}
    balancer = cluster.balancer("lb1", where, **environ, **proven)
    nodes.append(balancer)
    sidecar = cluster.start("side", f"{PREFIX}/node", *options, command=SIDECAR)
    nodes.append(sidecar)
    wait_for(lambda: "APP_ADDRESS: shop has no address; this node joins when it answers" in sidecar.log(), sidecar.log)
    first = start_application(cluster, nodes, "shop1", "--network-alias=shop")
    balancer.wait_servers("side", timeout_s=FAIL_S)
    assert f"addr={first.address}" in find_tags(balancer, "side")
    assert f"check: shop is at {first.address}" in sidecar.log()
    assert requests.get(balancer.url(), timeout=10).text == "shop1\n"
    second = start_application(cluster, nodes, "shop2", "--network-alias=shop")
    if is_proven:
        thief = (
            "--env=SERF_JOIN=lb1",
            f"--env=SERF_TAGS=role=web addr={second.address}",
            *NO_RIGHTS,
            "--user=1000:1000",
        )
        target = ("--env=APP_PORT=8080", f"--env=APP_HOST={second.address}")
        nodes.append(cluster.start("thief", f"{PREFIX}/node", *thief, *target, command=SIDECAR))
        wait_for(lambda: "node thief is quarantined: it has no tag proof" in balancer.log(), balancer.story, FAIL_S)
    former = first.address
    first.stop()
    balancer.wait_servers("side", timeout_s=FAIL_S)
    wait_for(lambda: f"addr={second.address}" in find_tags(balancer, "side"), sidecar.log, FAIL_S)
    wait_for(lambda: requests.get(balancer.url(), timeout=10).text == "shop2\n", balancer.story, FAIL_S)
    assert f"check: shop is at {second.address}, no longer at {former}" in sidecar.log()
    balancer.wait_servers("side", timeout_s=FAIL_S)
    assert SECRET not in sidecar.log() + sidecar.spy("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
    sidecar.stop()
    assert sidecar.state["ExitCode"] == 0


def test_a_balancer_that_allows_no_other_address_says_how(cluster: Cluster, nodes: list[Container]) -> None:
    """By default the node is quarantined, and `status` names the setting."""
    nodes.append(cluster.balancer("lb1"))
    start_application(cluster, nodes, "shop1", "--network-alias=shop")
    nodes.append(cluster.start("side", f"{PREFIX}/node", *BESIDE, "--env=APP_ADDRESS=shop", command=SIDECAR))
    balancer = nodes[0]
    wait_for(lambda: "node side is quarantined" in balancer.log(), balancer.log, FAIL_S)
    told = balancer.exec("serf-haproxy", "status", "-o", "wide", user="serf-haproxy", is_checked=False)
    assert "allowed nowhere: SERF_HAPROXY_ADDR_NETWORKS has to name its network" in told
    explained = balancer.exec("serf-haproxy", "explain", "side", user="serf-haproxy", is_checked=False)
    assert "addr_networks = (none) (SERF_HAPROXY_ADDR_NETWORKS)" in explained


@pytest.mark.parametrize("way", ["restart", "stop and start"])
def test_a_sidecar_follows_its_application_into_a_new_network(
    cluster: Cluster, nodes: list[Container], way: str
) -> None:
    """When the application is started again, the sidecar ends with 111, is started again, and joins; it says why."""
    balancer = cluster.balancer("lb1", SERF_HAPROXY_FLAP_CUTOFF="0", SERF_HAPROXY_FAILED_GRACE_S="1")
    nodes.append(balancer)
    application = start_application(cluster, nodes, "shop1")
    sidecar = start_beside(cluster, nodes, application, "--restart=on-failure", "--env=ADDRESS_CHECK_S=1")
    balancer.wait_servers("shop1", timeout_s=FAIL_S)
    if way == "restart":
        cluster.engine("restart", application.id)
    else:
        application.stop()
        wait_for(lambda: "the network has gone" in sidecar.log(), sidecar.log, FAIL_S)
        wait_for(lambda: "shop1" in balancer.members("failed"), balancer.story, FAIL_S)
        assert sidecar.inspect()["RestartCount"] == 0, "no engine could start it now"
        cluster.engine("start", application.id)
    wait_for(lambda: sidecar.inspect()["RestartCount"] == 1 and sidecar.state["Running"], sidecar.log, FAIL_S)
    assert sidecar.log().count("the network has gone: the application's container was stopped, restarted or ") == 1
    assert "init: the application's container runs again, in a new network: ending with 111" in sidecar.log()
    wait_for(lambda: "shop1" in balancer.members("alive"), balancer.story, FAIL_S)
    balancer.wait_servers("shop1", timeout_s=FAIL_S)
    assert requests.get(balancer.url(), timeout=10).text == "shop1\n"


def test_a_sidecar_without_a_restart_policy_ends_with_111(cluster: Cluster, nodes: list[Container]) -> None:
    """The exit code is one at which every restart policy but `no` starts it again."""
    application = start_application(cluster, nodes, "shop1")
    sidecar = start_beside(cluster, nodes, application, "--env=ADDRESS_CHECK_S=1")
    wait_for(lambda: "the application at port 8080 answers" in sidecar.log(), sidecar.log, FAIL_S)
    cluster.engine("restart", application.id)
    assert sidecar.wait_end() == 111


def test_a_network_that_comes_back_ends_no_sidecar(cluster: Cluster, nodes: list[Container]) -> None:
    """An application that is disconnected from its network and connected again keeps its sidecar, which joins again."""
    balancer = cluster.balancer("lb1", SERF_HAPROXY_FLAP_CUTOFF="0")
    nodes.append(balancer)
    application = start_application(cluster, nodes, "shop1")
    sidecar = start_beside(cluster, nodes, application, "--env=ADDRESS_CHECK_S=1")
    balancer.wait_servers("shop1", timeout_s=FAIL_S)
    cluster.engine("network", "disconnect", cluster.network, application.id)
    wait_for(lambda: "the network has gone" in sidecar.log(), sidecar.log, FAIL_S)
    wait_for(lambda: balancer.view("shop1") != "UP", balancer.story, FAIL_S)
    cluster.engine("network", "connect", cluster.network, application.id)
    wait_for(lambda: balancer.view("shop1") == "UP", balancer.story, FAIL_S)
    assert requests.get(balancer.url(), timeout=10).text == "shop1\n"
    wait_for(lambda: "shop1" in balancer.members("alive"), balancer.story, BACK_S)
    assert sidecar.state["Running"]
