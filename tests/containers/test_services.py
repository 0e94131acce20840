"""Additional services in a container: the log forwarder of images/examples with Debian's rsyslog."""

import requests

from containers.cluster import Cluster
from containers.engine import ROOT, Engine
from integration.proxy import wait_for

FORWARDER = ROOT / "images" / "examples" / "log-forwarder"
MOUNT = f"--volume={FORWARDER}:/etc/serf-haproxy/services.d/log-forwarder:ro"


def test_a_mounted_service_sends_the_log_to_a_syslog_server(engine: Engine, cluster: Cluster) -> None:
    """A request's log line reaches rsyslog, also after the forwarder was killed and when the container stops."""
    here = ROOT / "tests" / "containers" / "rsyslog"
    syslog = cluster.start("syslog", engine.build("rsyslog", here / "Dockerfile", here))
    balancer = cluster.balancer("lb1", MOUNT, SYSLOG_SERVER="syslog:514")
    balancer.wait_servers()
    service = "/run/service/log-forwarder"
    wait_for(
        lambda: "tail" in balancer.exec("cat", f"/proc/{balancer.pid('log-forwarder')}/comm"), "it follows the log"
    )

    def arrives(path: str) -> bool:
        requests.get(balancer.url(path), timeout=10)
        return any(path in line and "local0.info lb1 haproxy" in line for line in syslog.log().splitlines())

    wait_for(lambda: arrives("/first"), "a line at the syslog server")
    before = balancer.pid("log-forwarder")
    balancer.exec("s6-svc", "-k", service)
    wait_for(lambda: balancer.pid("log-forwarder") not in (before, -1), "the forwarder is back")
    wait_for(lambda: arrives("/second"), "a line after its restart")
    requests.get(balancer.url("/last"), timeout=10)
    assert balancer.stop() < 10
    assert balancer.state["ExitCode"] == 0
    wait_for(lambda: "/last" in syslog.log(), "the last line")


def test_an_additional_service_cannot_replace_a_built_in_one(cluster: Cluster) -> None:
    """An additional service with the name of a built-in one ends the container with 100 and a message."""
    mount = f"--volume={FORWARDER}:/etc/serf-haproxy/services.d/haproxy:ro"
    balancer = cluster.balancer("lb2", mount)
    assert balancer.wait_end() == 100
    assert "a service with this name already exists" in balancer.log()
