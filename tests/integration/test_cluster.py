"""The whole product with real web applications, Serf, s6 and HAProxy: the changes that happen to a cluster."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

import probe
from integration.agents import run_serf
from integration.cluster import Cluster, make_cluster
from integration.load import Load, run_load
from integration.proxy import free_port, wait_for
from serf_haproxy.config import fingerprint
from serf_haproxy.lab.balancer import DAEMON, SERVICES
from serf_haproxy.settings import Settings


@pytest.fixture
def cluster(short_dir: Path) -> Iterator[Cluster]:
    """Run a balancer and two nodes."""
    with make_cluster(short_dir / "lab", 2) as running:
        yield running


def test_nodes_may_be_there_before_the_balancer(short_dir: Path) -> None:
    """A balancer that starts last finds all nodes."""
    with make_cluster(short_dir / "lab", 2, 0) as cluster:
        cluster.lab.balancer_up("lb1")
        assert cluster.servers() == {"web1", "web2"}
        assert cluster.seen() == {"127.0.1.1", "127.0.1.2"}


def test_a_life_of_joins_and_leaves_loses_no_request(cluster: Cluster) -> None:
    """Join, graceful leave, return with a new address: requests go to the right nodes and none fails."""
    host, port = cluster.settings.frontend_bind.split(":")
    with run_load(Load(host, int(port), think_s=0.01), 8) as load:
        cluster.lab.add("web3")
        assert cluster.servers() == {"web1", "web2", "web3"}
        cluster.lab.leave("web2")
        assert cluster.servers() == {"web1", "web3"}
        cluster.lab.return_("web2", "127.0.1.200")
        assert cluster.servers() == {"web1", "web2", "web3"}
        wait_for(lambda: "127.0.1.200" in cluster.seen(), "the new address serves")
    assert load.failures == []
    assert load.ok_count > 300
    assert Path(cluster.settings.nodes_dir, "web2").read_text().startswith("alive\tweb2\t127.0.1.200\tweb\t")


def test_a_tag_update_changes_the_port(cluster: Cluster) -> None:
    """After a member-update with another port tag, requests go to that port."""
    old = cluster.node("web1")
    environment = os.environ | {"APP_HOST": old["address"], "APP_PORT": str(free_port(old["address"]))}
    app = Path(__file__).parents[2] / "images" / "webapp" / "app.py"
    second = subprocess.Popen([sys.executable, app], env=environment)
    try:
        cluster.lab.tags("web1", {"port": environment["APP_PORT"]})
        line = f"server web1 {old['address']}:{environment['APP_PORT']} "
        wait_for(lambda: line in Path(cluster.settings.config_path).read_text(), "the new port is published")
        wait_for(cluster.is_right, "HAProxy runs it")
        os.kill(int(old["app_pid"]), signal.SIGKILL)
        wait_for(lambda: cluster.seen() == {"127.0.1.1", "127.0.1.2"}, "the new port serves", 5)
    finally:
        second.terminate()
        second.wait(20)


def test_what_a_member_says_reaches_no_terminal_through_the_log_of_serf(cluster: Cluster) -> None:
    """Serf writes a member's name into its log as it is; in the file it is printable ASCII and begins no line."""
    forged = "2026/11/26 00:00:00 [ERR] forged"
    name = f"\x1b[31mevil\u202e\x07\n{forged}\n    {forged}\n"
    options = (f"-join={cluster.balancer()['serf_addr']}", "-retry-max=3")
    with run_serf(name, "127.0.1.66", free_port("127.0.1.66"), options=options):
        log = Path(cluster.balancer()["log_dir"], "serf", "current")
        wait_for(lambda: b"[ERR] forged? 127.0.1.66\n" in log.read_bytes(), "Serf tells of the member")
    said = log.read_bytes()
    assert b"?[31mevil?????2026" in said
    assert re.search(rb"[^ -~\n\t]", said) is None
    own_line = re.compile(rb"\S+ \S+  (==> .*|    2\d{3}/\S+ \S+ \[[A-Z]+\] .*| +[A-Z][A-Za-z ]+: .*|)")
    for line in said.splitlines():
        assert own_line.fullmatch(line), line
        assert not line.endswith(b"[ERR] forged"), line


def test_a_reload_without_sockets_and_memory_takes_no_server_out(cluster: Cluster) -> None:
    """When both sockets and the memory of servers are gone, s6 reloads HAProxy, and takes no server for a new one."""
    host, port = cluster.settings.frontend_bind.split(":")
    log = Path(cluster.balancer()["log_dir"], "haproxy", "current")
    with run_load(Load(host, int(port), think_s=0.01), 4) as load:
        wait_for(lambda: load.ok_count > 50, "the load runs")
        before = log.read_text()
        cluster.control(DAEMON, "-p")
        os.unlink(cluster.settings.runtime_socket)
        os.unlink(cluster.settings.master_socket)
        Path(cluster.settings.state_dir, "known.json").write_text("{")
        cluster.lab.tags("web1", {"weight": "7"})
        cluster.control(DAEMON, "-c")
        wait_for(lambda: " weight 7" in Path(cluster.settings.config_path).read_text(), "the new weight")
        wait_for(cluster.is_right, "HAProxy runs it")
        since = load.ok_count
        wait_for(lambda: load.ok_count > since + 50, "requests afterwards")
    assert load.failures == []
    said = log.read_text().removeprefix(before)
    assert "Reloading HAProxy" in said
    assert "changed from server-state" not in said


def test_a_crashed_node_gets_no_requests_and_is_removed(cluster: Cluster) -> None:
    """SIGKILL without a leave: no request fails; HAProxy's checks detect it first, Serf removes the node later."""
    host, port = cluster.settings.frontend_bind.split(":")
    with run_load(Load(host, int(port), think_s=0.01), 4) as load:
        wait_for(lambda: load.ok_count > 50, "the load runs")
        cluster.lab.crash("web2")
        cluster.wait_servers("web1", timeout_s=40)
        wait_for(lambda: cluster.seen() == {"127.0.1.1"}, "only web1 answers")
    # Nothing can complete an answer that the killed process had begun; HAProxy repeats other GETs on another server.
    assert load.lost == []
    assert Path(cluster.settings.nodes_dir, "web2").read_text().startswith("failed\t")
    cluster.lab.return_("web2")
    assert cluster.servers() == {"web1", "web2"}


@pytest.mark.parametrize("service", [DAEMON, "serf"])
def test_a_leave_while_a_service_was_down_is_noticed(cluster: Cluster, service: str) -> None:
    """A node that left while the daemon or the Serf agent was down is removed once the service is up again."""
    cluster.control(service, "-wd", "-d")
    cluster.ask("web2").leave()
    cluster.control(service, "-wU", "-u")
    cluster.wait_servers("web1")
    wait_for(cluster.is_right, "file and HAProxy agree")


def test_a_leave_while_the_whole_balancer_was_down_is_noticed(cluster: Cluster) -> None:
    """The balancer stops, one node leaves and another joins: after its start it has exactly the live nodes."""
    cluster.lab.balancer_down("lb1")
    cluster.lab.leave("web2")
    cluster.lab.add("web3")
    cluster.lab.balancer_up("lb1")
    cluster.wait_servers("web1", "web3")
    wait_for(cluster.is_right, "file and HAProxy agree")


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_and_the_state_is_right(cluster: Cluster, service: str) -> None:
    """After SIGKILL of a supervised process another takes its place, and a node that joins then is served."""
    before = cluster.pid(service)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: cluster.pid(service) not in (before, -1), f"{service} is back")
    subprocess.run(
        ["s6-svwait", "-U", "-t", "15000", os.path.join(cluster.balancer()["service_dir"], service)], check=True
    )
    cluster.wait_servers("web1", "web2")
    cluster.lab.add("web3")
    wait_for(cluster.is_right, "file and HAProxy agree")
    assert cluster.seen() == {"127.0.1.1", "127.0.1.2", "127.0.1.3"}


def test_stopping_in_the_middle_of_a_reload_finishes_the_requests(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the tree is stopped while HAProxy loads a new configuration, a request of 2 s still gets its answer.

    HAProxy can lose a signal at that moment. The tree has to repeat it, or HAProxy would run until its time limit.
    """
    monkeypatch.setenv("HAPROXY_STOP_S", "25")
    with make_cluster(short_dir / "lab", 1) as cluster:
        row = cluster.node("web1")
        delay = requests.post(
            f"http://{row['address']}:{row['port']}/delay", json={"delay": 2000, "checks": False}, timeout=10
        )
        delay.raise_for_status()
        cluster.control(DAEMON, "-wd", "-d")
        with open(cluster.settings.config_path, "a", encoding="utf-8") as file:
            file.writelines(f"backend large{number}\n    server web1 127.0.0.1:9\n" for number in range(5000))
        master = psutil.Process(cluster.pid("haproxy"))
        url, before = cluster.balancer()["frontend_url"], master.children()
        answers: list[int] = []
        client = threading.Thread(target=lambda: answers.append(requests.get(url, timeout=30).status_code))
        client.start()
        wait_for(lambda: _connection_count(cluster.settings), "the request is on its way")
        cluster.control("haproxy", "-2")
        wait_for(lambda: "-sf" in master.cmdline(), "the master has begun to reload")
        os.kill(int(cluster.balancer()["svscan_pid"]), signal.SIGTERM)
        started_s = time.monotonic()
        assert master.children() == before, "the reload was over too soon for this test"
        cluster.lab.balancer_down("lb1")
        client.join(30)
        assert answers == [200]
        assert time.monotonic() - started_s < 20


def _connection_count(settings: Settings) -> int:
    running = probe.read_running(settings)
    return sum(seen.connection_count for seen in ((running and running.servers) or {}).values())


def test_a_daemon_with_invalid_settings_is_not_restarted(cluster: Cluster) -> None:
    """A daemon that ends with exit code 100 stays down: its finish script tells s6 not to restart it."""
    service = Path(cluster.balancer()["service_dir"], DAEMON)
    run = service / "run"
    run.write_text(run.read_text().replace("exec 2>&1\n", "exec 2>&1\nexport SERF_HAPROXY_QUIET_S=soon\n"))
    cluster.control(DAEMON, "-r")
    wait_for(lambda: b"100" in _svstat(service) and b"down" in _svstat(service), "the daemon is down")
    wait_for(lambda: _svstat(service, "-o", "wantedup") == b"false\n", "s6 does not restart it")
    log = Path(cluster.balancer()["service_dir"]).parent / "log" / DAEMON / "current"
    assert log.read_text().count("SERF_HAPROXY_QUIET_S='soon': must be 0 to 10 seconds") == 1


def _svstat(service: Path, *options: str) -> bytes:
    return subprocess.run(["s6-svstat", *options, str(service)], capture_output=True, check=True).stdout


def test_two_balancers_have_the_same_servers(short_dir: Path) -> None:
    """Two balancers of one cluster have the same servers."""
    with make_cluster(short_dir / "lab", 2, 2) as cluster:
        assert cluster.servers("lb1") == cluster.servers("lb2") == {"web1", "web2"}
        cluster.lab.leave("web1")
        assert cluster.servers("lb1") == cluster.servers("lb2") == {"web2"}


def test_status_shows_the_cluster_as_a_table_and_as_json(cluster: Cluster) -> None:
    """`status` shows all members, their health in HAProxy, and the outcome of the last pass."""
    command = [sys.executable, "-m", "serf_haproxy", "status"]
    environment = os.environ | cluster.lab.env()
    wait_for(lambda: {view.status for view in (probe.read_servers(cluster.settings) or {}).values()} == {"UP"}, "UP")
    table = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    report = json.loads(subprocess.run([*command, "--json"], env=environment, capture_output=True, check=True).stdout)
    assert {row["name"]: row["health"] for row in report["members"]} == {"lb1": None, "web1": "UP", "web2": "UP"}
    assert report["daemon_runs"]
    assert report["digest"] == fingerprint.digest_of(Path(cluster.settings.config_path).read_text())
    assert all(word in table for word in ("web1", "127.0.1.2", "UP", report["verdict"]))
