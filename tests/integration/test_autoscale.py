"""Servers that come and go with the load: real processes, real requests, and what breaks in between.

SCALE_INS=1000 takes away so many servers under load instead of a few.
"""

import concurrent.futures
import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import workers
from integration.proxy import wait_for
from integration.test_daemon import COMMAND
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.services import Wish
from serf_haproxy.lab.traffic import Result, Traffic, make_traffic

SCALE_INS = int(os.environ.get("SCALE_INS", "3"))
MOST = 4
_WAIT_S = 90.0


class Stage:
    """A lab with one service that scales, from 1 to 4 servers.

    Args:
        lab: The lab.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @property
    def nodes(self) -> list[str]:
        """The nodes whose processes should run."""
        return [row["name"] for row in self.lab.status()["nodes"] if row["state"] == "alive"]

    def notes(self, name: str = "lb1") -> dict[str, Any]:
        """Return the notes of a balancer's autoscaler; nothing before it has made some."""
        with contextlib.suppress(FileNotFoundError):
            notes: dict[str, Any] = json.loads(Path(self.lab.lab_dir, name, "state", "autoscale.json").read_text())
            return notes
        return {}

    def slots(self, name: str = "lb1") -> dict[str, str]:
        """Return what the autoscaler of a balancer says of its slots."""
        slots: dict[str, str] = self.notes(name).get("services", {}).get("shop", {}).get("slots", {})
        return slots

    @property
    def in_force(self) -> str:
        """The tables of the services file that the first balancer has in force."""
        return Path(self.lab.lab_dir, "lb1", "state", "services.json").read_text()

    def serving(self) -> list[str]:
        """Return the slots in service."""
        return [slot for slot, state in self.slots().items() if state == "serving"]

    def happened(self, what: str, name: str = "lb1") -> int:
        """Return how often something has happened, by the history."""
        with contextlib.suppress(FileNotFoundError):
            lines = Path(self.lab.lab_dir, name, "state", "history.jsonl").read_text().splitlines()
            return sum(line["kind"] == "scale" and line["what"] == what for line in map(json.loads, lines))
        return 0

    def wait(self, check: Callable[[], bool], timeout_s: float = _WAIT_S) -> None:
        """Wait for something; the fault shows the log of the autoscaler."""
        log = Path(self.lab.lab_dir, "lb1", "log", "autoscale", "current")
        wait_for(check, lambda: log.read_text(errors="replace")[-3000:], timeout_s)

    def control(self, *words: str, service: str = "autoscale", name: str = "lb1") -> None:
        """Give orders to s6 about a service of a balancer."""
        subprocess.run(["s6-svc", *words, f"{self.lab.lab_dir}/{name}/service/{service}"], check=True)

    def command(self, *words: str) -> str:
        """Run a command of the first balancer; return what it prints."""
        done = subprocess.run(
            [*COMMAND, *words],
            env=os.environ | self.lab.env("lb1"),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def change(self, old: str, new: str, name: str = "lb1") -> None:
        """Change the services file of a balancer."""
        path = Path(self.lab.lab_dir, name, "services.toml")
        text = path.read_text()
        assert text.count(old) == 1
        new_path = path.with_suffix(".new")
        new_path.write_text(text.replace(old, new))
        new_path.rename(path)


@contextlib.contextmanager
def make_stage(directory: Path, balancers: int = 1) -> Iterator[Stage]:
    """Run a lab for the length of a block, and have its first server serve."""
    lab = Lab(directory / "lab", next(workers.lab_bases()))
    try:
        lab.up(0, balancers, services=[Wish("shop", "http", 0, MOST)])
        stage = Stage(lab)
        stage.wait(lambda: stage.serving() == ["shop-1"])
        yield stage
    finally:
        lab.down()


@pytest.fixture
def stage(short_dir: Path) -> Iterator[Stage]:
    """Yield a lab with one balancer."""
    with make_stage(short_dir) as made:
        yield made


@contextlib.contextmanager
def watching(stage: Stage) -> Iterator[list[int]]:
    """Note how many servers have processes, again and again, for the length of a block."""
    counts: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            counts.append(len(stage.nodes))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


def load(stage: Stage, rate: float, duration_s: float, work_s: float = 0.02) -> Result:
    """Make requests at times that do not depend on the answers."""
    wanted = Traffic(rate=rate, duration_s=duration_s, work_s=work_s, service="shop")
    return make_traffic(stage.lab, wanted, is_quiet=True)


@contextlib.contextmanager
def loading(stage: Stage, rate: float, duration_s: float) -> Iterator[list[Result]]:
    """Make requests beside a block, and after it until they are over."""
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(load(stage, rate, duration_s)))
    thread.start()
    try:
        yield results
    finally:
        thread.join()


def test_servers_come_and_go_with_the_load_and_no_request_is_lost(stage: Stage) -> None:
    """Many requests at once bring servers up to max; when there are few, all but one go, one after another."""
    with watching(stage) as counts:
        assert load(stage, 60, 10, work_s=0.2).faults == {}
        assert len(stage.serving()) == MOST
        scaled_in = 0
        lost: dict[str, int] = {}
        answered = 0
        while scaled_in < SCALE_INS:
            result = load(stage, 30, 15)
            answered += len(result.took_ms)
            lost |= result.faults
            scaled_in = stage.happened("stop done")
            if len(stage.serving()) == 1 and scaled_in < SCALE_INS:
                lost |= load(stage, 60, 6, work_s=0.2).faults
    assert (lost, max(counts)) == ({}, MOST)
    assert min(counts) >= 1
    assert answered > 0
    assert stage.happened("stop failed") == 0


def test_load_that_comes_back_cancels_a_drain(stage: Stage) -> None:
    """While a server drains, a load for which it is needed puts it back into service; nothing was stopped."""
    stage.change("in_window_s = 10", "in_window_s = 10\nsticky_s = 60")
    assert load(stage, 60, 8, work_s=0.2).faults == {}
    stage.wait(lambda: len(stage.serving()) == MOST)
    stage.wait(lambda: "draining" in stage.slots().values())
    assert load(stage, 60, 6, work_s=0.2).faults == {}
    stage.wait(lambda: len(stage.serving()) == MOST)
    assert stage.happened("return") >= 1
    assert stage.happened("stop done") == 0
    assert [line for line in stage.command("maint", "list").splitlines() if "shop-" in line] == []


@pytest.mark.parametrize("step", ["drain", "stop"])
def test_an_autoscaler_that_is_killed_goes_on(stage: Stage, step: str) -> None:
    """Killed in the middle of a step, it finishes that step after its restart; no request is lost."""
    assert load(stage, 60, 8, work_s=0.2).faults == {}
    stage.wait(lambda: len(stage.serving()) == MOST)
    with watching(stage) as counts, loading(stage, 20, 30) as results:
        stage.wait(lambda: stage.happened(step) > 0)
        stage.control("-k")
        stage.wait(lambda: len(stage.nodes) == MOST - 1)
    assert results[0].faults == {}
    assert (max(counts), min(counts) >= 1) == (MOST, True)
    stage.wait(lambda: [line for line in stage.command("maint", "list").splitlines() if "shop-4" in line] == [])


def test_nothing_is_stopped_while_the_daemon_is_away(stage: Stage) -> None:
    """Without its daemon a balancer takes no server away: no order would take effect."""
    assert load(stage, 60, 8, work_s=0.2).faults == {}
    stage.wait(lambda: len(stage.serving()) == MOST)
    stage.control("-d", service="daemon")
    stage.wait(lambda: stage.notes()["why"].startswith("the daemon has reported nothing"))
    drained = stage.happened("drain")
    assert load(stage, 20, 14).faults == {}
    assert (stage.happened("drain"), stage.happened("stop")) == (drained, 0)
    stage.control("-u", service="daemon")
    stage.wait(lambda: len(stage.nodes) < MOST)


def test_starts_that_fail_are_told_and_paced(stage: Stage) -> None:
    """An executor that fails is tried again with growing pauses; what serves goes on, and the history has its words."""
    stage.change('"fill"', '"filll"')
    stage.wait(lambda: "filll" in stage.in_force)
    before_s = time.monotonic()
    load(stage, 40, 10, work_s=0.2)
    stage.wait(lambda: stage.happened("start failed") >= MOST - 1)
    elapsed_s = time.monotonic() - before_s
    assert stage.happened("start failed") < 3 * (2 + elapsed_s)
    assert stage.serving() == ["shop-1"]
    assert "start failed" in stage.command("history", "--since", "5m")


def test_a_dry_run_acts_on_nothing(stage: Stage) -> None:
    """It says what would be done, while the real one is away, and does none of it."""
    stage.control("-d")
    stage.wait(lambda: not Path(f"/proc/{_find_pid(stage)}").exists() if _find_pid(stage) else True)
    stage.lab.leave("shop-1")
    told = stage.command("autoscale", "--dry-run")
    assert "start shop-1" in told
    assert stage.nodes == []


def _find_pid(stage: Stage) -> int:
    argv = ["s6-svstat", "-o", "pid", f"{stage.lab.lab_dir}/lb1/service/autoscale"]
    pid = int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return max(0, pid)


def test_two_balancers_count_together_and_one_decides(short_dir: Path) -> None:
    """The first name decides by the load at both; while it is dead the other does; when it is back it decides again."""
    with make_stage(short_dir, 2) as stage:
        stage.wait(lambda: stage.notes().get("is_deciding") is True and not stage.notes().get("why"))
        stage.wait(lambda: stage.notes("lb2").get("why") == "lb1 decides")
        result = load(stage, 60, 10, work_s=0.2)
        assert result.faults == {}
        stage.wait(lambda: len(stage.serving()) == MOST)
        assert stage.happened("start done", "lb2") == 0
        with watching(stage) as counts:
            stage.control("-d")
            stage.wait(lambda: stage.notes("lb2").get("is_deciding") is True)
            assert "lb1 does not say its load" in stage.notes("lb2")["why"]
            stage.control("-u")
            stage.wait(lambda: stage.notes("lb2").get("why") == "lb1 decides")
            stage.wait(lambda: len(stage.nodes) < MOST)
        assert max(counts) == MOST
        assert load(stage, 20, 20).faults == {}


def test_a_hanging_executor_is_killed_and_another_slot_serves(stage: Stage) -> None:
    """A start that hangs ends at its limit; meanwhile looks go on, and the server that is there answers."""
    stage.change("in_window_s = 10", "in_window_s = 10\nact_limit_s = 2")
    path = Path(stage.lab.lab_dir, "lb1", "services.toml")
    lines = [
        'start = ["sleep", "1000", "{slot}"]' if line.startswith("start") else line
        for line in path.read_text().splitlines()
    ]
    new_path = path.with_suffix(".new")
    new_path.write_text("\n".join(lines) + "\n")
    new_path.rename(path)
    stage.wait(lambda: "sleep" in stage.in_force)
    load(stage, 40, 12, work_s=0.2)
    stage.wait(lambda: stage.happened("start failed") >= 1)
    assert stage.serving() == ["shop-1"]
    assert load(stage, 10, 2).faults == {}


def test_a_service_rests_without_a_server_and_no_request_fails(short_dir: Path) -> None:
    """With min = 0 the last server goes when no request comes; the next ones wait until one is started.

    All of them are answered.
    """
    with make_stage(short_dir) as stage:
        stage.change("in_window_s = 10", "in_window_s = 10\nmin = 0\nzero_after_s = 10")
        stage.wait(lambda: '"min": 0' in stage.in_force)
        stage.wait(lambda: stage.nodes == [])
        stage.wait(lambda: "shop-1" not in stage.command("maint", "list"))
        url = f"{stage.lab.status()['balancers'][0]['frontend_url']}/shop"
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = [pool.submit(requests.get, url, timeout=60) for _ in range(20)]
            statuses = {answer.result(60).status_code for answer in answers}
        assert statuses == {200}
        stage.wait(lambda: stage.happened("start done") >= 2)
