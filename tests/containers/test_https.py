"""HTTPS in the balancer's image: a mounted directory of certificates, and HAProxy as another user than the daemon."""

import os
from pathlib import Path

from containers.cluster import Balancer, Cluster
from fakes.certificates import connect, get, see_certificate, write_pair
from integration.proxy import wait_for

HOST = "shop.test"
DAEMON_ID = 902
COPIES = "/var/lib/serf-haproxy/certificates"


def renew(path: Path) -> str:
    """Write a new certificate that only the daemon's user in the container may read."""
    certificate = write_pair(path, HOST)
    os.chown(path, DAEMON_ID, DAEMON_ID)
    return certificate


def see(balancer: Balancer) -> str | None:
    """Return the certificate that a client gets, None without one."""
    try:
        return see_certificate(f"{balancer.address}:443", HOST)
    except OSError:
        return None


def test_a_renewed_certificate_is_in_use_without_a_reload(cluster: Cluster, tmp_path: Path) -> None:
    """The daemon sees a new file in the mounted directory; only HAProxy's group may read the copy."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    path = tmp_path / f"{HOST}.pem"
    first = renew(path)
    mount = f"--volume={tmp_path}:/etc/serf-haproxy/certificates:ro"
    balancer = cluster.balancer("lb1", mount, SERF_HAPROXY_HTTPS_BIND=":443")
    cluster.webapps("web1")
    balancer.wait_servers("web1")
    wait_for(lambda: see(balancer) == first, balancer.log)
    with connect(f"{balancer.address}:443", HOST) as connection:
        assert get(connection, HOST).startswith("HTTP/1.1 200")
    reload_count = balancer.log().count("RELOADED")
    second = renew(path)
    wait_for(lambda: see(balancer) == second, balancer.log)
    assert "certificates changed at run time: ~shop.test.pem" in balancer.log()
    assert balancer.log().count("RELOADED") == reload_count
    modes = balancer.exec("sh", "-c", f"stat -c '%a %U:%G' {COPIES}/*", user="haproxy").split("\n")
    assert set(filter(None, modes)) == {"640 serf-haproxy:haproxy"}
    assert "ermission denied" in balancer.exec("ls", COPIES, user="nobody", is_checked=False)
    path.write_text("nonsense")
    wait_for(lambda: f"{HOST}.pem: it has no certificate" in balancer.log(), balancer.log)
    balancer.exec("s6-svc", "-r", "/run/service/haproxy")
    wait_for(lambda: see(balancer) == second, balancer.log)
    assert "PRIVATE" not in balancer.log()
