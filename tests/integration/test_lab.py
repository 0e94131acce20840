"""The lab with real processes: it serves the nodes that it reports, and leaves no process behind, however it ends."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

import workers
from integration.proxy import wait_for
from serf_haproxy.lab.balancer import DAEMON, SERVICES
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.services import Wish
from serf_haproxy.serf.rpc import Connection, RpcAddress

BASE = workers.LAB_BASE
COMMAND = [sys.executable, "-m", "serf_haproxy", "lab"]


@pytest.fixture
def lab_dir(short_dir: Path) -> Iterator[Path]:
    """Return the directory for a lab; a lab that is there after the test is taken down."""
    yield short_dir / "lab"
    Lab(short_dir / "lab").down()


def lab(lab_dir: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run one command of the lab."""
    argv = [*COMMAND, *words, "--dir", str(lab_dir)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=150, check=False, env=os.environ | environment)


def running_in(directory: Path) -> list[str]:
    """Return the processes whose working directory is below a directory, as that of all processes of a lab is."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(f"{directory}/"):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def seen_through(balancer: dict[str, Any]) -> set[str]:
    """Return the addresses of the nodes that answer eight requests through a frontend."""
    url = balancer["frontend_url"]
    answers = [requests.get(url, timeout=10, headers={"Connection": "close"}) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 8
    return {answer.headers["X-Backend-IP"] for answer in answers}


def test_up_returns_when_everything_is_served_and_down_leaves_nothing(lab_dir: Path) -> None:
    """All nodes answer through all balancers right after `up`; after `down` no process and no file is left."""
    started = lab(lab_dir, "up", "--port-base", str(BASE), "--nodes", "2", "--balancers", "2", "--json")
    assert started.returncode == 0, started.stderr
    status = json.loads(started.stdout)
    assert status == Lab(lab_dir).status()
    for balancer in status["balancers"]:
        assert seen_through(balancer) == {"127.0.1.1", "127.0.1.2"}
        assert Path(balancer["service_dir"], "haproxy", "run").exists()
    assert [(row["name"], row["state"]) for row in status["nodes"]] == [("web1", "alive"), ("web2", "alive")]
    script = f'eval "$({sys.executable} -m serf_haproxy lab env --balancer lb2 --dir {lab_dir})"; env'
    exported = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert f"SERF_HAPROXY_CONFIG_PATH={lab_dir}/lb2/haproxy.cfg" in exported
    assert len(running_in(lab_dir)) > 2 * 10
    assert lab(lab_dir, "down").returncode == 0
    assert running_in(lab_dir) == []
    assert not lab_dir.exists()
    again = lab(lab_dir, "down")
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True)


def test_no_serf_of_a_lab_answers_without_its_key(lab_dir: Path) -> None:
    """Each Serf agent refuses commands without its key, which is different for each and visible in no process."""
    running = Lab(lab_dir, BASE + 5)
    running.up(nodes=2)
    status = running.status()
    rows = [*status["balancers"], *status["nodes"]]
    keys = {Path(row["rpc_auth_file"]).read_text().strip() for row in rows}
    assert (len(keys), "" in keys) == (3, False)
    for row in rows:
        assert stat.S_IMODE(Path(row["rpc_auth_file"]).stat().st_mode) == 0o600
        for words in (["members"], ["leave"], ["force-leave", "web2"], ["keys", "-list"], ["tags", "-set", "x=y"]):
            argv = ["serf", words[0], f"-rpc-addr={row['rpc_addr']}", *words[1:]]
            refused = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert refused.returncode != 0
            assert "Authentication required" in refused.stdout + refused.stderr
    for name in ("web1", "web2"):
        assert stat.S_IMODE((lab_dir / "nodes" / name / "agent.json").stat().st_mode) == 0o600
    running.tags("web1", {"weight": "7"})
    assert running.status()["nodes"][0]["tags"]["weight"] == "7"
    for process in (psutil.Process(int(line.split()[0])) for line in running_in(lab_dir)):
        visible = " ".join([*process.cmdline(), *process.environ().values()])
        assert not [key for key in keys if key in visible], process.name()


def test_nodes_without_a_balancer_find_each_other(lab_dir: Path) -> None:
    """Where there is no balancer, `up` and `return` wait until the other nodes list each node at its address."""
    running = Lab(lab_dir, BASE + 15)
    running.up(nodes=2, balancers=0)
    running.leave("web2")
    running.return_("web2", "127.0.1.9")
    (row,) = [row for row in running.status()["nodes"] if row["name"] == "web1"]
    host, _, port = row["rpc_addr"].rpartition(":")
    connection = Connection(RpcAddress(host, int(port), row["rpc_auth_file"]))
    assert connection.read_roster().members["web2"][1].address == "127.0.1.9"
    connection.close()


def test_a_taken_port_is_reported_before_a_process_starts(lab_dir: Path) -> None:
    """`up` on a taken port names the port, and starts no process and writes no file."""
    with socket.create_server(("127.0.1.2", BASE + 10 + 4)):
        failed = lab(lab_dir, "up", "--port-base", str(BASE + 10), "--nodes", "2")
    assert failed.returncode == 111
    assert f"the application of web2: 127.0.1.2:{BASE + 14}: Address already in use" in failed.stderr
    assert running_in(lab_dir) == []
    assert not lab_dir.exists()


def test_a_failed_up_stops_everything_and_keeps_the_logs(lab_dir: Path) -> None:
    """A lab that cannot start reports why; no process runs, and the log that it names is there until `down`."""
    failed = lab(lab_dir, "up", "--port-base", str(BASE + 20), "--nodes", "1", SERF_HAPROXY_QUIET_S="soon")
    assert failed.returncode == 111
    assert "SERF_HAPROXY_QUIET_S='soon': must be 0 to 10 seconds" in failed.stderr
    assert running_in(lab_dir) == []
    assert Path(failed.stderr.split("its log: ")[1].strip()).exists()
    assert lab(lab_dir, "status").returncode == 100
    assert lab(lab_dir, "down").returncode == 0
    assert not lab_dir.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing(lab_dir: Path, number: signal.Signals) -> None:
    """A signal while the lab starts stops all its processes and removes its files."""
    # Many nodes, so that the signal comes before the lab is up.
    argv = [*COMMAND, "up", "--nodes", "8", "--dir", str(lab_dir), "--port-base", str(BASE + 30)]
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    argv = ["env", "--default-signal=INT", *argv]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as up:
        wait_for(lambda: any("s6-supervise" in line for line in running_in(lab_dir)), "a supervisor runs")
        up.send_signal(number)
        _, words = up.communicate(timeout=60)
    assert up.returncode == 128 + number
    assert "interrupted" in words
    assert running_in(lab_dir) == []
    assert not lab_dir.exists()


def test_two_labs_do_not_conflict(lab_dir: Path, short_dir: Path) -> None:
    """Two labs with different ports use the same names and addresses; each serves only its own nodes."""
    one, other = Lab(lab_dir, BASE + 40), Lab(short_dir / "other", BASE + 50)
    try:
        one.up(nodes=1)
        other.up(nodes=2)
        one.leave("web1")
        assert one.status()["nodes"][0]["state"] == "left"
        one.down()
        assert seen_through(other.status()["balancers"][0]) == {"127.0.1.1", "127.0.1.2"}
    finally:
        other.down()


def test_nodes_leave_crash_and_return_under_a_new_address(lab_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that left or crashed is not served; it returns with its name at an address that was never used."""
    monkeypatch.setenv("SERF_PROFILE", "local")  # Serf forgets failed nodes within 15 s; `lan`: 30 s
    running = Lab(lab_dir, BASE + 60)
    running.up(nodes=2)
    balancer = running.status()["balancers"][0]
    running.leave("web1")
    assert seen_through(balancer) == {"127.0.1.2"}
    running.return_("web1")
    assert seen_through(balancer) == {"127.0.1.2", "127.0.1.3"}
    running.crash("web2")
    rows = {row["name"]: row for row in running.status()["nodes"]}
    assert (rows["web2"]["state"], rows["web2"]["serf_pid"], rows["web2"]["app_pid"]) == ("crashed", None, None)
    running.return_("web2")
    assert seen_through(balancer) == {"127.0.1.3", "127.0.1.4"}


def test_a_lab_of_the_previous_release_is_shown_and_taken_down(lab_dir: Path) -> None:
    """`status` and `down` work on a lab that the previous release built: other names in its record and on disk."""
    started = lab(lab_dir, "up", "--port-base", str(BASE + 90), "--backends", "1")
    assert started.returncode == 0, started.stderr
    assert "--backends is deprecated; use --nodes" in started.stderr
    (lab_dir / "nodes").rename(lab_dir / "backends")
    table = json.loads((lab_dir / "lab.json").read_text())
    table["backends"] = table.pop("nodes")
    del table["node_dirs"]
    (lab_dir / "lab.json").write_text(json.dumps(table))
    shown = lab(lab_dir, "status", "--json")
    assert shown.returncode == 0, shown.stderr
    (row,) = json.loads(shown.stdout)["nodes"]
    assert (row["name"], row["state"], row["log_dir"]) == ("web1", "alive", f"{lab_dir}/backends/web1")
    assert len(running_in(lab_dir)) > 10
    assert lab(lab_dir, "balancer", "lb1", "down").returncode == 0
    service_dir = lab_dir / "lb1" / "service"
    (service_dir / DAEMON).rename(service_dir / "agent")
    restarted = lab(lab_dir, "balancer", "lb1", "up")
    assert restarted.returncode == 0, restarted.stderr
    assert sorted(path.name for path in service_dir.iterdir() if not path.name.startswith(".")) == sorted(
        (*SERVICES, "autoscale")
    )
    assert lab(lab_dir, "down").returncode == 0
    assert running_in(lab_dir) == []
    assert not lab_dir.exists()


def greet(endpoint: str) -> str:
    """Return the name in the greeting of a TCP application."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"hello\n")
        said = b""
        while said.count(b"\n") < 2:
            data = client.recv(1000)
            assert data, said
            said += data
    name, _, echo = said.decode().replace("\n", " ").split()
    assert echo == "hello"
    return name


def ask(url: str) -> str:
    """Return the name of the web application that answers a new connection."""
    return str(requests.get(url, timeout=10, headers={"Connection": "close"}).json()["tag"])


def test_a_lab_carries_several_services(lab_dir: Path) -> None:
    """`up --services` starts HTTP and TCP applications; each is reached where the status says, by its nodes alone."""
    words = ["--services", "shop=2,pg=2", "--nodes", "1", "--balancers", "2", "--json"]
    started = lab(lab_dir, "up", "--port-base", str(BASE + 25), *words)
    assert started.returncode == 0, started.stderr

    def find(service: str, status: dict[str, Any]) -> list[set[str]]:
        """Return the names that answer eight times, for each balancer."""
        row = next(row for row in status["services"] if row["service"] == service)
        if row["mode"] == "tcp":
            return [{greet(endpoint) for _ in range(8)} for endpoint in row["reached_at"]]
        return [{ask(url) for _ in range(8)} for url in row["reached_at"]]

    status = json.loads(started.stdout)
    assert find("nodes", status) == [{"web1"}] * 2
    assert find("shop", status) == [{"shop1", "shop2"}] * 2
    assert find("pg", status) == [{"pg1", "pg2"}] * 2
    host = requests.get(status["balancers"][0]["frontend_url"], headers={"Host": "shop.localhost"}, timeout=10)
    assert host.json()["tag"].startswith("shop")
    for name, service in (("pg3", "pg"), ("more", "shop")):
        added = lab(lab_dir, "add", name, "--service", service, "--json")
        assert added.returncode == 0, added.stderr
        assert name in find(service, json.loads(added.stdout))[0]
    refused = lab(lab_dir, "add", "x", "--service", "mail")
    assert (refused.returncode, "has nodes, shop, pg" in refused.stderr) == (100, True)
    running = Lab(lab_dir)
    running.tags("shop1", {"svc.shop": f"{BASE + 29}:drain"})
    running.leave("pg1")
    wait_for(lambda: find("shop", running.status()) == [{"shop2", "more"}] * 2, "shop1 is drained")
    assert find("pg", running.status()) == [{"pg2", "pg3"}] * 2
    running.balancer_down("lb2")
    running.balancer_up("lb2")
    running.balancer_up("lb3")  # also with a node that gets no requests
    assert find("shop", running.status()) == [{"shop2", "more"}] * 3
    running.return_("pg1", port=BASE + 99)
    assert find("pg", running.status()) == [{"pg1", "pg2", "pg3"}] * 3
    running.down()
    assert running_in(lab_dir) == []
    assert not lab_dir.exists()


def test_changes_of_the_services_file_stay(lab_dir: Path) -> None:
    """What a user writes into the services file of a balancer is there after the balancer's restart."""
    running = Lab(lab_dir, BASE + 35)
    running.up(nodes=0, services=[Wish("shop", "http", 1)])
    path = lab_dir / "lb1" / "services.toml"
    path.write_text(path.read_text() + '\n[more]\nroutes = ["/more"]\n')
    running.balancer_down("lb1")
    running.balancer_up("lb1")
    assert "[more]" in path.read_text()
    assert "backend more" in (lab_dir / "lb1" / "haproxy.cfg").read_text()


def test_processes_that_died_are_shown_and_cleaned_up(lab_dir: Path) -> None:
    """A dead application and a dead s6-svscan show up in the status; `down` also ends the orphaned supervisors."""
    running = Lab(lab_dir, BASE + 70)
    running.up(nodes=1)
    status = running.status()
    for pid in (status["nodes"][0]["app_pid"], status["balancers"][0]["svscan_pid"]):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: running.status()["balancers"][0]["state"] == "down", "the status shows that s6-svscan has ended")
    wait_for(
        lambda: running.status()["nodes"][0]["state"] == "crashed", "the status shows that the application has ended"
    )
    assert any("s6-supervise" in line for line in running_in(lab_dir))
    running.down()
    assert running_in(lab_dir) == []


def test_down_ends_a_service_whose_supervisor_was_killed(lab_dir: Path) -> None:
    """`down` stops a HAProxy whose s6-supervise was killed, and no other process in the balancer's directory."""
    running = Lab(lab_dir, BASE + 80)
    running.up(nodes=1)
    service_dir = lab_dir / "lb1" / "service" / "haproxy"
    orphan = int(subprocess.run(["s6-svstat", "-o", "pid", service_dir], capture_output=True, check=True).stdout)
    supervisor = psutil.Process(orphan).parent()
    assert supervisor
    assert supervisor.name() == "s6-supervise"
    visitor = subprocess.Popen(["sleep", "600"], cwd=lab_dir / "lb1", env=os.environ | running.env())
    try:
        supervisor.kill()
        wait_for(lambda: psutil.Process(orphan).parent() != supervisor, "it is an orphan")
        assert any(line.startswith(f"{orphan} ") for line in running_in(lab_dir))
        running.down()
        assert running_in(lab_dir) == [f"{visitor.pid} sleep 600"]
    finally:
        visitor.kill()
        visitor.wait(10)
