"""The services file in the balancer's image: a mounted directory, as the how-to says."""

import re
from pathlib import Path

from containers.cluster import Cluster
from containers.engine import ROOT
from integration.proxy import wait_for

PAGE = ROOT / "docs" / "how-to" / "serve-several-services.md"


def test_a_replaced_services_file_is_seen(cluster: Cluster, tmp_path: Path) -> None:
    """A file that is replaced by renaming counts after the how-to's signal to the daemon in the container."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    found = re.search(r"-v \$PWD/config:(\S+) -e SERF_HAPROXY_SERVICES_FILE=(\S+)", PAGE.read_text())
    assert found
    signal = re.search(r"docker exec lb1 (s6-svc .*)", PAGE.read_text())
    assert signal
    path = tmp_path / Path(found[2]).name
    path.write_text('[api]\nroutes = ["/api"]\n')
    balancer = cluster.balancer("lb1", f"--volume={tmp_path}:{found[1]}", SERF_HAPROXY_SERVICES_FILE=found[2])
    cluster.webapps("web1")
    balancer.wait_servers("web1")

    def see() -> set[str]:
        status = balancer.exec("serf-haproxy", "status", user="serf-haproxy", is_checked=False)
        return set(re.findall(r"^service (\w+) ", status, re.M))

    wait_for(lambda: see() == {"api", "nodes"}, balancer.log)
    new = tmp_path / "services.toml.new"
    new.write_text('[shop]\nroutes = ["/shop"]\n')
    new.rename(path)
    balancer.exec(*signal[1].split())
    wait_for(lambda: see() == {"nodes", "shop"}, balancer.log)
