"""Random faults, one after another, in a whole lab under load; afterwards its state is right.

RANDOM_FAULTS_S is the duration in seconds, RANDOM_FAULTS_SEED selects the faults: the same seed, the same faults in the
same order. RANDOM_FAULTS_PORT is the first port number of the lab.
"""

import datetime
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import probe
from integration.chaos import Chaos
from integration.cluster import PORTS, Cluster
from integration.faults import SUMMARY, Failures, Row
from integration.load import Load, run_load
from integration.proxy import wait_for
from serf_haproxy.errors import SystemFault
from serf_haproxy.lab.balancer import DAEMON
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.serf import nodes

DURATION_S = float(os.environ.get("RANDOM_FAULTS_S") or 40)
SEED = int(os.environ.get("RANDOM_FAULTS_SEED") or 1)
ROUND_S = 120.0  # after each round the state has to become right before the next faults
SETTLE_S = 90.0  # Serf itself takes up to 40 s to reconnect to a member
GROWTH_BYTES = 30 * 2**20
SETTINGS = {
    "SERF_PROFILE": "local",  # Serf forgets failed nodes within 15 s
    "SERF_HAPROXY_RESYNC_INTERVAL_S": "5",
    "SERF_HAPROXY_FAILED_GRACE_S": "2",
    "SERF_HAPROXY_HARD_STOP_AFTER_S": "5",
    "SERF_HAPROXY_FLAP_CUTOFF": "0",  # all live nodes have to serve at the end, also those that flapped
}
STATE_FILES = {"last_pass.json", "flaps.json", "known.json", "served", "serf.snapshot"}
STATE_FILES |= {"pass.lock", "daemon.lock", "resident.lock", "history.jsonl"}
CONFIG_FILES = {"haproxy.cfg", "haproxy.cfg.good", "haproxy.cfg.state", "haproxy.cfg.rejected", "haproxy.cfg.before"}


@pytest.fixture
def cluster(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Run a balancer and five nodes."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    base = int(os.environ.get("RANDOM_FAULTS_PORT") or next(PORTS))
    lab = Lab(short_dir / "lab", base)
    try:
        lab.up(5)
        yield Cluster(lab)
    finally:
        lab.down()


def list_processes(cluster: Cluster) -> list[str]:
    """Return the program of each process below the balancer's s6-svscan, sorted."""
    tree = psutil.Process(int(cluster.balancer()["svscan_pid"])).children(recursive=True)
    names = []
    for process in tree:
        try:
            names.append(process.name() if process.status() != psutil.STATUS_ZOMBIE else "a zombie")
        except psutil.Error:
            continue
    return sorted(names)


def measure_bytes(cluster: Cluster) -> dict[str, int]:
    """Return the resident memory (RSS) of HAProxy, with all workers, and of the daemon, bytes."""
    found = {}
    for service in ("haproxy", DAEMON):
        process = psutil.Process(cluster.pid(service))
        found[service] = sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
    return found


def find_wrong(cluster: Cluster, alive: set[str], processes: list[str]) -> str:
    """Return what is wrong with the cluster; an empty text when its state is right."""
    settings = cluster.settings
    running, views = probe.read_running(settings), probe.read_servers(settings) or {}
    if running is None or running.servers is None or not running.is_open:
        return "HAProxy does not answer, or not on its runtime socket"
    up = {name for name, view in views.items() if view.status == "UP"}
    if up != alive or views.keys() != alive:
        return f"alive are {sorted(alive)}, HAProxy has {sorted(views)}, up are {sorted(up)}"
    if list_processes(cluster) != processes:
        return f"processes {list_processes(cluster)} instead of {processes}"
    return find_wrong_files(cluster, alive)


def find_wrong_files(cluster: Cluster, alive: set[str]) -> str:
    """Return which file is wrong; an empty text when all are right."""
    settings = cluster.settings
    try:
        files, strays = nodes.load(settings.nodes_dir)
    except SystemFault as fault:  # the directory was removed just now
        return str(fault)
    heard = {name for name, file in files.items() if file.status == "alive"}
    if heard != alive | {"lb1"} or strays:
        return f"node files say alive: {sorted(heard)}; strays: {[(stray.name, stray.reason) for stray in strays]}"
    home = Path(settings.config_path).parent
    found = {entry.name for entry in home.iterdir() if entry.name.startswith("haproxy.cfg")} - CONFIG_FILES
    found |= set(os.listdir(settings.state_dir)) - STATE_FILES
    if found:
        return f"stray files: {sorted(found)}"
    # The master socket returns with the next reload, which s6 makes by a signal; nothing needs it until then.
    missing = [path for path in (settings.runtime_socket, settings.wake_fifo) if not os.path.exists(path)]
    if missing:
        return f"missing: {missing}"
    return "" if cluster.is_right() else "haproxy.cfg, the node files and HAProxy do not agree"


def read_logs(cluster: Cluster, at_s: float) -> list[str]:
    """Return what the balancer's services logged around a time, without the requests that were answered."""
    home = Path(cluster.balancer()["log_dir"])
    lines = [f"{line}  [{path.parent.name}]" for path in home.glob("*/[@c]*") for line in path.read_text().splitlines()]
    begin, end = (f"{datetime.datetime.fromtimestamp(at_s + by_s):%Y-%m-%d %H:%M:%S}" for by_s in (-15, 2))
    return sorted(line for line in lines if begin <= line <= end and not re.search(r" web \w+/web\d \S+ 200 ", line))


def run_round(cluster: Cluster, chaos: Chaos, row: Row, duration_s: float, processes: list[str]) -> None:
    """Inject random faults for some time under load, then assert that the state becomes right."""
    host, port = cluster.settings.frontend_bind.split(":")
    failures = Failures()
    with run_load(Load(host, int(port), think_s=0.03, failures=failures), 4) as load, chaos.watching():
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            chaos.act()
        ended_s = time.monotonic()
        what = lambda: f"{find_wrong(cluster, set(chaos.alive), processes)}\n{chaos.story()}"  # noqa: E731
        wait_for(lambda: not find_wrong(cluster, set(chaos.alive), processes), what, SETTLE_S)
        settled_s = time.monotonic() - ended_s
    lost = [
        f"{at_s - chaos.started_s:.2f} s: {failure}"
        for failure, at_s in zip(failures, failures.times_s, strict=True)
        if not chaos.was_away(at_s)
    ]
    row.away_count += len(failures) - len(lost)
    row.failed_count += len(lost)
    row.injected_count = row.healed_count = len(chaos.done)
    row.longest_wrong_s = max(row.longest_wrong_s, chaos.longest_missing_s)
    print(
        f"round over: {len(chaos.done)} faults so far, {load.ok_count} requests answered, {len(failures)} failed, "
        f"{len(lost)} of them while HAProxy was there; settled after {settled_s:.1f} s; "
        f"longest time that HAProxy lacked a live node {chaos.longest_missing_s:.1f} s ({chaos.longest_missing_of})",
        flush=True,
    )
    if lost:
        first_s = float(lost[0].split()[0])
        logs = read_logs(cluster, time.time() - (time.monotonic() - chaos.started_s - first_s))
        raise AssertionError("\n".join([*lost, chaos.story(first_s + 1), *logs]))


@pytest.mark.usefixtures("migrating")
def test_random_faults_are_healed(cluster: Cluster) -> None:
    """Random kills, stops, garbage and removed files: members, files, processes and memory are right afterwards."""
    print(f"RANDOM_FAULTS_SEED={SEED} RANDOM_FAULTS_S={DURATION_S:g}", flush=True)
    names = {f"web{number}" for number in range(1, 6)}
    # Master and worker: the HAProxy that checks a configuration and the one of the readiness check have ended.
    wait_for(lambda: list_processes(cluster).count("haproxy") == 2, lambda: str(list_processes(cluster)))
    processes = list_processes(cluster)
    wait_for(lambda: not find_wrong(cluster, names, processes), lambda: find_wrong(cluster, names, processes), SETTLE_S)
    before = measure_bytes(cluster)
    row = SUMMARY.setdefault(f"random faults, seed {SEED}", Row())
    chaos = Chaos(cluster, random.Random(SEED))
    left_s = DURATION_S
    while left_s > 0:
        run_round(cluster, chaos, row, min(left_s, ROUND_S), processes)
        left_s -= ROUND_S
    after = measure_bytes(cluster)
    print(f"memory before {before}, after {after}; {chaos.counts()}", flush=True)
    assert all(after[name] - before[name] < GROWTH_BYTES for name in before)
    once = [sys.executable, "-m", "serf_haproxy", "once"]
    environ = os.environ | cluster.lab.env()
    said = subprocess.run(once, env=environ, capture_output=True, text=True, check=True).stdout
    assert said.startswith("UNCHANGED "), said
