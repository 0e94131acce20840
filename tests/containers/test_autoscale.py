"""Containers that come and go with the load, started and stopped by the balancer's own container.

SCALE_INS=50 takes away so many under load instead of two.
"""

import json
import os
import re
from pathlib import Path

from containers.cluster import CONFINED, PREFIX, Cluster
from integration.load import Load, run_load
from integration.proxy import wait_for

SCALE_INS = int(os.environ.get("SCALE_INS", "2"))
MOST = 3
_STEP_S = 180.0
TABLE = """
[nodes]
server_maxconn = 2
[nodes.scale]
executor = "docker"
socket = "/run/engine/docker.sock"
template = "{template}"
slots = "{slots}"
max = 3
in_window_s = 10
cooldown_s = 1
"""


def test_containers_come_and_go_with_the_load_and_no_request_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    """The balancer copies a template as the load grows and stops copies as it falls; every request is answered."""
    engine = cluster.engine
    slots = f"scaled-{os.getpid()}-"
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    template = f"template-{os.getpid()}"
    (tmp_path / "services.toml").write_text(TABLE.format(template=template, slots=slots))
    where = (f"--label={engine.label}", f"--network={cluster.network}")
    engine("create", f"--name={template}", *where, *CONFINED, "--env=SERF_JOIN=lb1", f"{PREFIX}/webapp")
    socket = Path(engine.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    volumes = (f"--volume={tmp_path}:/etc/serf-haproxy/config:ro", f"--volume={socket.parent}:/run/engine")
    balancer = cluster.balancer(
        "lb1",
        *volumes,
        AUTOSCALE_GID=str(socket.stat().st_gid),
        SERF_HAPROXY_SERVICES_FILE="/etc/serf-haproxy/config/services.toml",
    )

    def list_up() -> list[str]:
        return sorted(name for name, view in (balancer.views() or {}).items() if view == "UP")

    def count_stops() -> int:
        told = balancer.exec("cat", "/var/lib/serf-haproxy/state/history.jsonl", user="serf-haproxy")
        lines = [json.loads(line) for line in told.splitlines()]
        return sum(line["kind"] == "scale" and line["what"] == "stop done" for line in lines)

    def tell() -> str:
        return f"{list_up()}\n{balancer.log()[-4000:]}"

    try:
        wait_for(lambda: list_up() == [f"{slots}1"], tell, _STEP_S)
        loads = []
        for _ in range(SCALE_INS):
            if count_stops() >= SCALE_INS:
                break
            loads.append(Load(balancer.address, 80, work_us=200_000, limit_s=_STEP_S))
            with run_load(loads[-1], 20):
                wait_for(lambda: len(list_up()) == MOST, tell, _STEP_S)
            loads.append(Load(balancer.address, 80, think_s=0.2, limit_s=2 * _STEP_S))
            with run_load(loads[-1], 2):
                wait_for(lambda: len(list_up()) == 1, tell, _STEP_S)
        stop_count = count_stops()
        assert stop_count >= SCALE_INS
        answered_count = sum(load.ok_count for load in loads)
        print(f"\n{stop_count} have gone; {answered_count} requests answered")
        assert [failure for load in loads for failure in load.failures] == []
        assert answered_count > 0
        assert re.search(r"service nodes: drain \S+: .* are there", balancer.log())
    finally:
        names = engine("ps", "--all", "--quiet", f"--filter=name=^{slots}").split()
        engine("rm", "--force", "--volumes", template, *names)
