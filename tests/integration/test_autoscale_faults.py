"""What breaks while servers come and go: executors, slots, processes, balancers and the network between them.

In each of them requests are answered, and there are never fewer servers than min nor more than max.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.engine import need
from integration.network import cut, isolated, private_network
from integration.stage import MOST, Stage, load, loading, make_stage, watching
from serf_haproxy.lab.traffic import Result

GROUP = 12345  # of one Serf agent alone
CROWD = (60, 8, 0.2)  # requests a second, seconds, work: for all servers


@pytest.fixture
def stage(short_dir: Path) -> Iterator[Stage]:
    """Yield a lab with one balancer."""
    with make_stage(short_dir) as made:
        yield made


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


def test_a_hanging_executor_is_killed_and_another_slot_serves(stage: Stage) -> None:
    """A start that hangs ends at its limit; meanwhile looks go on, and the server that is there answers."""
    stage.change("in_window_s = 10", "in_window_s = 10\nact_limit_s = 2")
    stage.replace("start", 'start = ["sleep", "1000", "{slot}"]')
    load(stage, 40, 12, work_s=0.2)
    stage.wait(lambda: stage.happened("start failed") >= 1)
    assert stage.serving() == ["shop-1"]
    assert load(stage, 10, 2).faults == {}


@pytest.mark.parametrize("stop", [["false", "{slot}"], ["sh", "-c", "sleep 1000", "{slot}"]], ids=["fails", "hangs"])
def test_a_stop_that_does_not_work_is_tried_again(stage: Stage, stop: list[str]) -> None:
    """A server that cannot be stopped stays drained, and gets no requests; it goes as soon as the executor works."""
    path = Path(stage.lab.lab_dir, "lb1", "services.toml")
    good = next(line for line in path.read_text().splitlines() if line.startswith("stop = "))
    stage.replace("stop", f"stop = {json.dumps(stop)}")
    assert load(stage, *CROWD).faults == {}
    stage.wait(lambda: len(stage.serving()) == MOST)
    stage.change("in_window_s = 10", "in_window_s = 10\nact_limit_s = 5")  # starts take longer on a busy machine
    with watching(stage) as counts, loading(stage, 20, 30) as results:
        stage.wait(lambda: stage.happened("stop failed") >= 2)
        assert len(stage.nodes) == MOST
        stage.replace("stop", good)
        stage.replace("act_limit_s", "act_limit_s = 60")
        stage.wait(lambda: stage.happened("stop done") >= 1)
    assert results[0].faults == {}
    assert (max(counts), min(counts) >= 1) == (MOST, True)


_GHOSTS = """
import os, pathlib, subprocess, sys
verb, home, lab, slot = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[-1]
program = [sys.executable, "-P", "-m", "serf_haproxy", "lab"]
if verb == "list":
    print("\\n".join(path.name for path in home.iterdir()))
    sys.exit(subprocess.run([*program, "slots", "--dir", lab]).returncode)
if slot == "shop-2":
    (home / slot).touch() if verb == "start" else (home / slot).unlink(missing_ok=True)
    sys.exit(0)
words = ["fill", slot, "--service", "shop"] if verb == "start" else ["empty", slot]
sys.exit(subprocess.run([*program, *words, "--dir", lab]).returncode)
"""


def test_a_slot_that_never_joins_is_stopped_and_another_one_serves(stage: Stage, tmp_path: Path) -> None:
    """What is started and never comes into service counts as one of max, and is stopped after its limit."""
    home, program = tmp_path / "ghosts", tmp_path / "ghosts.py"
    home.mkdir()
    program.write_text(_GHOSTS)
    stage.change("in_window_s = 10", "in_window_s = 60\nstart_limit_s = 20")
    for key, verb in (("list", "list"), ("start", "start"), ("stop", "stop")):
        words = [
            sys.executable,
            str(program),
            verb,
            str(home),
            stage.lab.lab_dir,
            *(["{slot}"] if verb != "list" else []),
        ]
        stage.replace(key, f"{key} = {json.dumps(words)}")
    with watching(stage, lambda: len(list(home.iterdir()))) as counts:
        assert load(stage, *CROWD).faults == {}
        stage.wait(lambda: set(stage.serving()) == {"shop-1", "shop-3", "shop-4"})
        stage.wait(lambda: stage.happened("stop done") >= 1)
        assert "it is not in service 20 s after its start" in stage.command("history", "--since", "5m")
        assert load(stage, 20, 5).faults == {}
    assert (max(counts), min(counts) >= 1) == (MOST, True)


def test_a_service_that_scales_no_more_has_its_drained_servers_back(stage: Stage) -> None:
    """What drains when the table `scale` goes from the services file is in service again; nothing is stopped."""
    stage.change("in_window_s = 10", "in_window_s = 10\nsticky_s = 60")
    assert load(stage, *CROWD).faults == {}
    stage.wait(lambda: len(stage.serving()) == MOST)
    stage.wait(lambda: "draining" in stage.slots().values())
    text = Path(stage.lab.lab_dir, "lb1", "services.toml").read_text()
    with loading(stage, 20, 10) as results:
        stage.change(text[text.index("[shop.scale]") :], "")
        stage.wait(lambda: "shop-" not in stage.command("maint", "list"))
    assert results[0].faults == {}
    result = load(stage, 20, 5)
    assert (result.faults, len(result.shares)) == ({}, MOST)
    assert (len(stage.nodes), stage.happened("stop")) == (MOST, 0)


def test_what_fails_is_told_with_the_words_of_haproxy(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """The output of a test with failed requests has HAProxy's termination states, the servers, and what happened."""
    stage.replace("queue_timeout_s", "queue_timeout_s = 0.5")
    stage.replace("max", "max = 1")
    for _ in range(20):  # until HAProxy has the new limit
        if faults := dict(load(stage, 60, 3, work_s=0.2).faults):
            break
    said = capsys.readouterr().out
    assert faults.keys() == {"503"}
    assert f"    {faults['503']} x 503 sQ-- shop/<NOSRV> at lb1\n" in said
    assert "lb1 shop/shop-1: status=UP weight=1 " in said
    assert "lb1 autoscale" in said


@pytest.mark.parametrize("service", ["autoscale", "daemon", "haproxy"])
def test_a_process_that_is_killed_in_the_middle_of_a_step_costs_nothing(stage: Stage, service: str) -> None:
    """Killed after a start, a drain and a stop has begun: each step is finished, and no request is lost.

    A HAProxy that is killed takes its connections with it, and nothing else.
    """
    with watching(stage) as counts:
        with loading(stage, *CROWD) as crowds:
            stage.wait(lambda: stage.happened("start") > 1)
            stage.control("-k", service=service)
            stage.wait(lambda: len(stage.nodes) == MOST)
        stage.wait(lambda: len(stage.serving()) == MOST)
        assert _list_lost(crowds[0], service) == {}
        for number, step in enumerate(("drain", "stop"), 1):
            with loading(stage, 20, 15) as results:
                stage.wait(lambda step=step, number=number: stage.happened(step) >= number)
                stage.control("-k", service=service)
                stage.wait(lambda number=number: len(stage.nodes) <= MOST - number)
            assert _list_lost(results[0], service) == {}
        assert load(stage, 20, 5).faults == {}
    assert (max(counts), min(counts) >= 1) == (MOST, True)
    stage.wait(lambda: [line for line in stage.command("maint", "list").splitlines() if "shop-4" in line] == [])


def _list_lost(result: Result, killed: str) -> dict[str, int]:
    """Return the failures, without those of connections that a killed HAProxy had or refused."""
    is_away = killed == "haproxy"
    return {
        fault: count
        for fault, count in result.faults.items()
        if not (is_away and (fault == "closed" or fault.startswith("connect: ")))
    }


def test_a_deciding_balancer_that_dies_in_the_middle_of_a_step_is_followed_by_another_one(short_dir: Path) -> None:
    """Its whole machine goes after it has begun a start, a drain or a stop: the other one goes on with the step."""
    with make_stage(short_dir, 2) as stage, watching(stage) as counts:
        for step in ("start", "drain", "stop"):
            stage.wait(lambda: stage.notes("lb2").get("why") == "lb1 decides")
            stage.wait(lambda: stage.notes().get("is_deciding") is True and not stage.notes().get("why"))
            begun = stage.happened(step)
            with loading(stage, *CROWD, door="lb2") as results:
                if step == "start":
                    stage.wait(lambda begun=begun: stage.happened("start") > begun)
                    stage.kill("lb1")
            assert results[0].faults == {}
            stage.wait(lambda: len(stage.nodes) == MOST)
            if step != "start":
                with loading(stage, 20, 30, door="lb2") as results:
                    stage.wait(lambda begun=begun, step=step: stage.happened(step) > begun)
                    stage.kill("lb1")
                assert results[0].faults == {}
            stage.wait(lambda: stage.notes("lb2").get("is_deciding") is True)
            stage.wait(lambda: len(stage.nodes) < MOST and stage.notes("lb2")["why"] == "", 180)
            stage.lab.balancer_up("lb1", 60)
            assert load(stage, 20, 5).faults == {}
    assert (max(counts), min(counts) >= 1) == (MOST, True)


def test_two_balancers_that_do_not_hear_each_other_stay_within_the_limits(short_dir: Path) -> None:
    """Both decide and fill the same slots, up to max; neither takes one away before they hear each other again."""
    with private_network(), make_stage(short_dir, 2) as stage, watching(stage) as counts:
        stage.wait(lambda: stage.notes("lb2").get("why") == "lb1 decides")
        places = [one["serf_addr"].split(":") for one in stage.lab.status()["balancers"]]
        with cut(*places):
            stage.wait(lambda: stage.notes("lb2").get("is_deciding") is True)
            stage.wait(lambda: stage.notes().get("why") == "balancer lb2 does not say its load")
            assert load(stage, *CROWD).faults == {}
            stage.wait(lambda: len(stage.serving()) == len(stage.serving("lb2")) == MOST)
            assert stage.happened("start") >= 1
            assert stage.happened("start", "lb2") >= 1
            assert load(stage, 20, 20).faults == {}
            assert stage.happened("drain") == stage.happened("drain", "lb2") == 0
        with loading(stage, 20, 30) as results:
            stage.wait(lambda: stage.notes("lb2").get("why") == "lb1 decides")
            stage.wait(lambda: len(stage.nodes) == 1)
        assert results[0].faults == {}
    assert (max(counts), min(counts)) == (MOST, 1)


def test_a_balancer_cut_off_from_all_gossip_while_another_one_scales_costs_nothing(short_dir: Path) -> None:
    """It hears nothing of new servers nor of drains, and keeps what it has; both stay within the limits, then agree."""
    with private_network(), make_stage(short_dir, 2) as stage, watching(stage) as counts:
        wrapper = f"exec s6-applyuidgid -g {GROUP} s6-notifyoncheck"
        stage.rewrite("serf", "exec s6-notifyoncheck", wrapper, "lb2")
        stage.wait(lambda: _is_calm(stage, ["shop-1"]))
        place = next(one for one in stage.lab.status()["balancers"] if one["name"] == "lb2")
        with isolated(*place["serf_addr"].split(":"), GROUP):
            with loading(stage, *CROWD, door="lb1") as crowds:
                stage.wait(lambda: stage.happened("start") > 1)
            assert crowds[0].faults == {}
            stage.wait(lambda: len(stage.serving()) == MOST)
            assert load(stage, 15, 5, door="lb2").faults == {}
            stage.wait(lambda: stage.notes("lb2").get("is_deciding") is True)
            # When the first balancer has given up the second one, it takes servers away that the second one still has.
            with loading(stage, 20, 60) as results:
                stage.wait(lambda: stage.happened("stop done") >= 1, 180)
            assert results[0].faults == {}
            assert stage.happened("drain", "lb2") == 0
        with loading(stage, 20, 30) as results:
            stage.wait(lambda: _is_calm(stage, stage.serving()), 180)
        assert results[0].faults == {}
        stage.wait(lambda: _is_calm(stage, ["shop-1"]), 180)
    assert (max(counts), min(counts)) == (MOST, 1)


def _is_calm(stage: Stage, serving: list[str]) -> bool:
    """Return whether both balancers see the same slots in service, and the first one decides by the load at both."""
    is_agreed = stage.serving() == stage.serving("lb2") == serving
    return is_agreed and stage.notes("lb2").get("why") == "lb1 decides" and not stage.notes().get("why")


@pytest.mark.parametrize("jump_s", [18_000, -18_000])
def test_a_clock_that_jumps_in_the_middle_of_each_step_costs_nothing(short_dir: Path, jump_s: int) -> None:
    """The time of day of a balancer's processes jumps after a start, a drain and a stop has begun, and back."""
    need("gcc")
    library, clock = short_dir / "clock.so", short_dir / "shift"
    source = Path(__file__).parent / "clock.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wno-attribute-alias", "-o", library, source, "-ldl"], check=True)
    clock.write_text("0")
    environ = f"LD_PRELOAD={library} CLOCK_SHIFT={clock}"
    with make_stage(short_dir) as stage, watching(stage) as counts:
        for service, program in (("autoscale", "autoscale"), ("daemon", "run --notify-fd 3")):
            last = f'${{DAEMON_USER:+s6-setuidgid "$DAEMON_USER"}} serf-haproxy {program}'
            stage.rewrite(service, f"exec {last}", f"exec env {environ} {last}")
        stage.wait(lambda: stage.notes().get("why") == "" and stage.serving() == ["shop-1"])
        with loading(stage, *CROWD) as crowds:
            stage.wait(lambda: stage.happened("start") > 1)
            clock.write_text(str(jump_s))
            stage.wait(lambda: len(stage.serving()) == MOST)
        assert crowds[0].faults == {}
        assert stage.notes()["at_s"] - time.time() == pytest.approx(jump_s, abs=600)
        for step, place_s in (("drain", 0), ("stop", jump_s)):
            begun = stage.happened(step)
            with loading(stage, 20, 30) as results:
                stage.wait(lambda step=step, begun=begun: stage.happened(step) > begun)
                clock.write_text(str(place_s))
                stage.wait(lambda: stage.happened("stop done") >= 1)
            assert results[0].faults == {}
        with loading(stage, 20, 20) as results:
            stage.wait(lambda: len(stage.nodes) == 1)
        assert results[0].faults == {}
    assert (max(counts), min(counts)) == (MOST, 1)
