"""The companion: containers of unchanged images, each a node of its own, with one companion."""

import json
import time
from pathlib import Path

import requests

from containers.applications import build
from containers.cluster import FAIL_S, Balancer, Cluster, Container
from containers.engine import PREFIX, Engine
from containers.test_compose import Compose, find_compose, removing
from containers.test_sidecar import SECRET, find_subnet
from integration.load import Load, run_load
from integration.proxy import wait_for

RIGHTS = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
RIGHTS += ("--cap-add=KILL", "--cap-add=SETGID", "--cap-add=SETUID")
SHELL = "/busybox mkdir -p /bin; /busybox ln -sf /busybox /bin/sh"  # Docker's --health-cmd needs it
SERVED = ("/busybox", "sh", "-c", f"{SHELL}; trap 'sleep 1; exit 0' TERM; httpd -f -p 8080 -h /www & wait")
HEALTH = ("--health-cmd=/busybox test -e /www/index.html", "--health-interval=1s", "--health-retries=1")


def find_socket(engine: Engine) -> str:
    """Return the path of the engine's socket."""
    return engine.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


def start_companion(
    cluster: Cluster, nodes: list[Container], *options: str, command: tuple[str, ...] = ()
) -> Container:
    """Start a companion that joins lb1."""
    entry = "--entrypoint=serf-haproxy", "--no-healthcheck"
    socket = f"--volume={find_socket(cluster.engine)}:/var/run/docker.sock"
    words = ("companion", "--join=lb1", *command)
    companion = cluster.start("companion", f"{PREFIX}/balancer", *RIGHTS, *entry, socket, *options, command=words)
    nodes.append(companion)
    return companion


def start_application(
    cluster: Cluster, nodes: list[Container], service: str, port: str, *options: str, name: str = ""
) -> Container:
    """Start an application that knows nothing of the cluster; its name has the test's process in it."""
    name = f"{cluster.network}-{name or len(nodes)}"
    labels = f"--label=serf-haproxy.service={service}", f"--label=serf-haproxy.port={port}"
    image = build(cluster.engine, "plain")
    application = cluster.start(name, image, f"--name={name}", *labels, *options, command=SERVED)
    nodes.append(application)
    return application


def start_balancer(cluster: Cluster, nodes: list[Container], *options: str, **environ: str) -> Balancer:
    """Start a balancer that allows the applications' addresses."""
    environ = {"SERF_HAPROXY_ADDR_NETWORKS": find_subnet(cluster), "SERF_HAPROXY_FLAP_CUTOFF": "0"} | environ
    balancer = cluster.balancer("lb1", *options, **environ)
    nodes.append(balancer)
    return balancer


def count_agents(companion: Container) -> int:
    """Return how many Serf agents run in a companion's container."""
    return companion.engine("top", companion.id, "-eo", "pid,args").count("serf agent -config-file")


def test_scaling_an_unchanged_application_makes_served_nodes(engine: Engine) -> None:
    """Each container is served, none when it has gone; a killed companion comes back unnoticed; a stop is a leave."""
    environ = {"APP_IMAGE": build(engine, "plain"), "APP_PORT": "8080", "APP_NETWORKS": "10.0.0.0/8 172.16.0.0/12"}
    environ["DOCKER_SOCKET"] = find_socket(engine)
    with removing(Compose(engine, find_compose("1"), "compose.yaml", "compose.companion.yaml", **environ)) as compose:
        started = ("up", "--no-build", "--detach", "--scale", "webapp=0")
        compose(*started, "--scale", "app=5", "balancer", "app", "companion", "webapp")
        balancer = compose.balancer("balancer")

        def serves(count: int) -> bool:
            views = balancer.views() or {}
            return len(views) == count and set(views.values()) == {"UP"} and all("app" in name for name in views)

        wait_for(lambda: serves(5), balancer.story, FAIL_S)
        assert requests.get(compose.url(), timeout=10).text == "served\n"
        (number,) = compose("ps", "-q", "companion").split()
        companion = Container(engine, "companion", balancer.network, number)
        assert "Health" not in companion.state  # the image's check is for a balancer
        before = balancer.members("alive")
        engine("kill", number)
        engine("start", number)
        wait_for(lambda: count_agents(companion) == 5, companion.log, FAIL_S)
        time.sleep(3.0)  # a name at another port would be refused within that time
        assert balancer.members("alive") == before
        assert "failed" not in balancer.serf("members")
        assert count_agents(companion) == 5
        compose(*started, "--no-recreate", "--scale", "app=2", "balancer", "app", "companion", "webapp")
        wait_for(lambda: serves(2), balancer.story, FAIL_S)
        compose("stop", "companion")
        assert companion.state["ExitCode"] == 0
        wait_for(lambda: len(balancer.members("left")) == 5, balancer.story, FAIL_S)


def test_a_node_follows_its_container(cluster: Cluster, nodes: list[Container]) -> None:
    """It joins when the container is healthy, is drained while it is not, leaves at the signal, and comes back."""
    balancer = start_balancer(cluster, nodes)
    companion = start_companion(cluster, nodes)
    application = start_application(cluster, nodes, "nodes", "8080", *HEALTH)
    name = application.name
    balancer.wait_servers(name, timeout_s=FAIL_S)
    application.exec("/busybox", "mv", "/www/index.html", "/www/x", user="0")
    wait_for(lambda: "drain=true" in balancer.serf("members"), companion.log, FAIL_S)
    application.exec("/busybox", "mv", "/www/x", "/www/index.html", user="0")
    wait_for(lambda: "drain=true" not in balancer.serf("members"), companion.log, FAIL_S)
    cluster.engine("kill", "--signal=HUP", application.id)
    cluster.engine("restart", application.id)
    wait_for(lambda: companion.log().count(f"node {name} joins") == 2, companion.log, FAIL_S)
    assert companion.log().count("its container is being stopped") == 1
    balancer.wait_servers(name, timeout_s=FAIL_S)


def test_wrong_labels_are_said_once_and_harm_no_other(cluster: Cluster, nodes: list[Container], tmp_path: Path) -> None:
    """With a secret for gossip and one for proofs, the good container is served, up to the limit."""
    (tmp_path / "proof").write_text(f"{SECRET}\n")
    (tmp_path / "keys").write_text("MDEyMzQ1Njc4OWFiY2RlZg==\n")
    for file in ("proof", "keys"):
        (tmp_path / file).chmod(0o644)
    mounts = [f"--volume={tmp_path}/{file}:/secrets/{file}:ro" for file in ("proof", "keys")]
    mounts.append("--env=SERF_ENCRYPT_KEY_FILE=/secrets/keys")
    proof = {"SERF_HAPROXY_PROOF_SECRET_FILE": "/secrets/proof"}
    balancer = start_balancer(cluster, nodes, *mounts, **proof)
    bad = [
        start_application(cluster, nodes, service, port)
        for service, port in (("nodes", "0"), ("nodes\nlevel=ERROR", "80"), ("../x", "8080"), ("nodes", ""))
    ]
    good = start_application(cluster, nodes, "nodes", "8080")
    mounts.append("--env=SERF_PROOF_SECRET_FILE=/secrets/proof")
    companion = start_companion(cluster, nodes, *mounts, command=("--max=1", "--prefix=h1-"))
    balancer.wait_servers(f"h1-{good.name}", timeout_s=FAIL_S)
    start_application(cluster, nodes, "nodes", "8080")
    wait_for(lambda: "1 containers more than --max 1" in companion.log(), companion.log, FAIL_S)
    log = companion.log()
    for one in bad:
        assert log.count(f"container {one.name} is not announced: its label") == 1
    assert all(line.startswith("level=") for line in log.splitlines())
    assert "level=ERROR" not in [line.split()[0] for line in log.splitlines()]
    assert balancer.serves(f"h1-{good.name}")
    assert SECRET not in companion.spy("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ") + log
    users = companion.engine("top", companion.id, "-eo", "pid,uid,args").splitlines()
    assert [line.split()[1] for line in users if "serf agent -config" in line] == ["901"]


def test_an_application_that_serves_on_for_a_second_loses_no_request(cluster: Cluster, nodes: list[Container]) -> None:
    """The node leaves at the signal, before the application ends, so `docker stop` under load costs nothing."""
    balancer = start_balancer(cluster, nodes)
    start_companion(cluster, nodes)
    applications = [start_application(cluster, nodes, "nodes", "8080") for _ in range(3)]
    balancer.wait_servers(*(one.name for one in applications), timeout_s=FAIL_S)
    with run_load(Load(balancer.address, 80, think_s=0.01), 8) as crowd:
        applications[0].stop()
        wait_for(lambda: balancer.serves(*(one.name for one in applications[1:])), balancer.story, FAIL_S)
    assert crowd.failures == []
    assert json.loads(cluster.engine("inspect", applications[0].id))[0]["State"]["ExitCode"] == 0
