"""Servers that come and go with the load: real processes, real requests, and what breaks in between.

SCALE_INS=1000 takes away so many servers under load instead of a few, sixteen in a row. CONSTANT_MIN=30 holds a load
constant for so many minutes instead of one.
"""

import concurrent.futures
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from integration.stage import MOST, Stage, load, loading, make_stage, watching

SCALE_INS = int(os.environ.get("SCALE_INS", "3"))
CONSTANT_MIN = int(os.environ.get("CONSTANT_MIN", "1"))
MANY = 16  # servers, where more are taken away than a few


@pytest.fixture
def stage(short_dir: Path) -> Iterator[Stage]:
    """Yield a lab with one balancer."""
    with make_stage(short_dir) as made:
        yield made


def test_servers_come_and_go_with_the_load_and_no_request_is_lost(stage: Stage) -> None:
    """Many requests at once bring servers up to max; when there are few, all but one go, one after another."""
    with watching(stage) as counts:
        with loading(stage, 60, 10, work_s=0.2) as crowds:
            stage.wait(lambda: stage.happened("start done") == MOST)
        results = [*crowds, load(stage, 30, 15)]
        until_s = time.monotonic() + 300
        while len(stage.nodes) > 1 and time.monotonic() < until_s:
            results.append(load(stage, 30, 5))
    assert [result.faults for result in results] == [{}] * len(results)
    assert (max(counts), min(counts), len(stage.nodes)) == (MOST, 1, 1)
    assert stage.happened("stop failed") == 0


def test_servers_that_go_under_load_lose_no_request(short_dir: Path) -> None:
    """Again and again all servers but one are taken away while requests come: each one is answered."""
    most = MOST if SCALE_INS < MANY else MANY
    lost: dict[str, int] = {}
    answered = 0
    with make_stage(short_dir, most=most) as stage, watching(stage) as counts:
        stage.change("in_window_s = 10", f"in_window_s = 10\ncooldown_s = 0\nmin = {most}")
        is_falling = False
        until_s = time.monotonic() + 300 + 30 * SCALE_INS
        while (gone := stage.happened("stop done")) < SCALE_INS and time.monotonic() < until_s:
            result = load(stage, 30, 5)
            answered += len(result.took_ms)
            lost |= result.faults
            number = len(stage.nodes)
            if number == (1 if is_falling else most):
                now, then = (1, most) if is_falling else (most, 1)
                stage.change(f"\nmin = {now}\n", f"\nmin = {then}\n")
                is_falling = not is_falling
                print(f"{gone} have gone; {answered} requests answered; lost: {lost}", flush=True)
        assert stage.happened("stop done") >= SCALE_INS
        assert stage.happened("stop failed") == 0
    print(f"{gone} have gone; {answered} requests answered; lost: {lost}")
    assert (lost, max(counts)) == ({}, most)
    assert min(counts) >= 1
    assert answered > 0


def test_a_constant_load_does_not_make_servers_come_and_go(short_dir: Path) -> None:
    """Random requests at a constant rate, with the default windows: servers come back once in ten minutes at most.

    They come back only where this machine has stalled for a moment, so that there really was a queue.
    """
    with make_stage(short_dir, most=8) as stage, watching(stage) as counts:
        stage.change("in_window_s = 10\n", "")
        began_s = time.time()
        result = load(stage, 30, 60 * CONSTANT_MIN, work_s=0.2)
        starts, drains = (stage.list_times(what) for what in ("start", "drain"))
        history = stage.command("history", "--since", f"{CONSTANT_MIN + 5}m")
    p99_ms = result.percentile(99)
    print(
        f"\n{len(result.took_ms)} requests answered, lost: {result.faults}; p99 {p99_ms:.0f} ms; "
        f"{min(counts)} to {max(counts)} servers; starts after {[round(at_s - began_s) for at_s in starts]} s, "
        f"drains after {[round(at_s - began_s) for at_s in drains]} s"
    )
    assert result.faults == {}
    assert _count_turns(starts, drains) <= CONSTANT_MIN // 10, history


def _count_turns(starts: list[float], drains: list[float]) -> int:
    """Return how often servers were started after others had been taken away."""
    turns = [is_start for _, is_start in sorted([(at_s, 1) for at_s in starts] + [(at_s, 0) for at_s in drains])]
    return sum(before < after for before, after in itertools.pairwise(turns))


def test_a_peak_has_its_servers_without_any_load(stage: Stage) -> None:
    """While a peak of the services file lasts, its servers are there; when the file names another day, they go."""
    window = "in_window_s = 10"
    stage.change(window, f'{window}\npeaks = ["daily 00:00-24:00 min 3"]\ntime_zone = "Asia/Tokyo"')
    stage.wait(lambda: len(stage.serving()) == 3)
    assert "3 servers are the fewest now" in stage.command("history", "--since", "5m")
    other_day = time.strftime("%a", time.localtime(time.time() + 3 * 86400))
    stage.change("daily 00:00-24:00 min 3", f"{other_day} 00:00-24:00 min 4")
    stage.wait(lambda: len(stage.nodes) == 1)
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
