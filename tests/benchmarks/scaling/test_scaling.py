"""The study of scaling: its simulation against an exact one, its law against the whole one, and its page."""

import heapq
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autoscale.world import SCALING, World
from serf_haproxy.autoscale.law import Verb
from serf_haproxy.autoscale.slots import State

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

from scaling.controllers import Ours  # noqa: E402
from scaling.measure_case import count_turns  # noqa: E402
from scaling.optimum import count_optimum  # noqa: E402
from scaling.service import Servers, Shape, simulate  # noqa: E402


class Still:
    """A controller that changes nothing."""

    def decide(self, now_s: float, demand: int, servers: Servers) -> tuple[int, int, int]:  # noqa: ARG002
        """Return what `Controller.decide` says."""
        return 0, 0, 0


class Late:
    """A controller that starts servers at one moment."""

    def __init__(self, at_s: float, count: int) -> None:
        self.at_s, self.count = at_s, count

    def decide(self, now_s: float, demand: int, servers: Servers) -> tuple[int, int, int]:  # noqa: ARG002
        """Return what `Controller.decide` says."""
        return 0, self.count if now_s == self.at_s else 0, 0


def serve(rates: list[float], places: list[int], service_s: float, seed: int) -> tuple[list[float], list[int]]:
    """Return the latency of each request, and the demand at the end of each second: exact, request by request.

    Args:
        rates: Requests in each second.
        places: Requests that are worked at in each second; never fewer than in the one before.
        service_s: Mean time of the work of one.
        seed: Of the random numbers.
    """
    chance = random.Random(seed)
    # When each place is free: one that is added later, from then on.
    free = [
        float(second)
        for second, (less, more) in enumerate(zip([0, *places], places, strict=False))
        for _ in range(more - less)
    ]
    latencies, spans = [], []
    for second, rate in enumerate(rates):
        due_s = second + chance.expovariate(rate)
        while due_s < second + 1:
            begin_s = max(due_s, heapq.heappop(free))
            end_s = begin_s + chance.expovariate(1 / service_s)
            heapq.heappush(free, end_s)
            latencies.append(end_s - due_s)
            spans.append((due_s, end_s))
            due_s += chance.expovariate(rate)
    demand = np.zeros(len(rates) + 1)
    for begin_s, end_s in spans:
        first, last = int(begin_s), min(len(rates), int(end_s))
        demand[first:last] += 1  # it is there at the ends of these seconds
    return latencies, [int(value) for value in demand[:-1]]


@pytest.mark.parametrize(
    ("rate", "service_s", "servers", "span_s"),
    [(350.0, 0.2, 10, 300), (480.0, 0.2, 10, 300), (90.0, 1.0, 10, 1000), (38.0, 0.5, 2, 5000)],
)
def test_the_simulation_equals_an_exact_one(rate: float, service_s: float, servers: int, span_s: int) -> None:
    """Mean demand and p99 are within 15 % of a simulation request by request, with and without a queue."""
    rates = np.full(span_s, rate)
    shape = Shape(service_s=service_s)
    course = simulate(rates, shape, Still(), servers)
    latencies, demand = serve(rates.tolist(), [servers * shape.maxconn] * len(rates), service_s, 1)
    assert course.find_latency(0.99) == pytest.approx(float(np.quantile(latencies, 0.99)), rel=0.15)
    assert course.demand.mean() == pytest.approx(float(np.mean(demand)), rel=0.15)


def test_a_queue_and_its_end_equal_an_exact_one() -> None:
    """A sudden load before too few servers, and others that join: p99 and the greatest demand are within 15 %."""
    rates = np.array([100.0] * 60 + [600.0] * 60)
    course = simulate(rates, Shape(start_s=10.0), Late(61.0, 20), 5)
    places = (course.serving * 10).astype(int).tolist()
    latencies, demand = serve(rates.tolist(), places, 0.2, 1)
    assert course.find_latency(0.99) == pytest.approx(float(np.quantile(latencies, 0.99)), rel=0.15)
    assert course.demand.max() == pytest.approx(max(demand), rel=0.15)


def test_a_server_serves_as_long_after_the_decision_as_a_start_takes() -> None:
    """Decided after ten seconds and ready after five, they are there from then on; paid for since the decision."""
    course = simulate(np.full(30, 10.0), Shape(start_s=5.0), Late(10.0, 3), 1)
    assert course.serving.tolist() == [1] * 15 + [4] * 15
    assert course.existing.tolist() == [1] * 10 + [4] * 20


def test_the_law_that_is_simulated_is_the_law() -> None:
    """For the same slots and demands the counts of the simulation are those of the whole decision."""
    world = World(SCALING._replace(max=60), serving=3, work_s=Shape().service_s)
    law = Ours(Shape(most=60), cooldown_s=SCALING.cooldown_s)
    chance = random.Random(3)
    level = 20.0
    done = 0
    for second in range(3000):
        level = min(200.0, max(0.0, level * chance.uniform(0.9, 1.11))) if second % 400 else chance.uniform(5, 200)
        before = Servers(world.count(State.SERVING), world.count(State.STARTING), world.count(State.DRAINING))
        plan = world.tick(round(level))
        joined = sum(slot.state is State.SERVING and slot.since_s == world.now_s for slot in world.slots.values())
        verbs = [step.verb for step in plan.steps]
        joined -= verbs.count(Verb.RETURN)
        after = Servers(before.serving + joined, before.starting - joined, before.draining)
        counted = law.decide(world.now_s, round(level), after)
        assert counted == tuple(verbs.count(verb) for verb in (Verb.RETURN, Verb.START, Verb.DRAIN)), second
        done += sum(counted)
    assert done > 50


@pytest.mark.parametrize("work_s", [0.2, 2.0, 10.0])
@pytest.mark.parametrize("servers", [2, 8, 30])
def test_chance_alone_brings_no_server_back(servers: int, work_s: float) -> None:
    """Short and long requests, at constant rates halfway between two numbers of servers: no turn in half an hour."""
    shape = Shape(service_s=work_s)
    rates = np.full(2400, (servers + 0.5) * shape.capacity / work_s)
    for seed in range(2):
        assert count_turns(simulate(rates, shape, Ours(shape), servers + 1, seed)) == 0, seed


@pytest.mark.parametrize("servers", [400, 2000])
def test_a_slow_drift_brings_none_of_many_servers_back(servers: int) -> None:
    """A load that rises and falls by 2 % in twenty minutes is followed by no server, where there are many."""
    shape = Shape(most=3000)
    times = np.arange(5400)
    rates = servers * shape.capacity / shape.service_s * (1 + 0.02 * np.sin(2 * np.pi * times / 1200))
    assert count_turns(simulate(rates, shape, Ours(shape), servers)) == 0


def test_the_optimum_keeps_a_server_through_a_short_pause() -> None:
    """A pause as long as a start is no reason to end a server, a longer one is; each begins its start in time."""
    shape = Shape(service_s=1.0, maxconn=10, start_s=5.0, least=0)
    rates = np.array([0.0] * 20 + [7.0] * 10 + [0.0] * 5 + [7.0] * 10 + [0.0] * 6 + [7.0] * 10 + [0.0] * 10)
    existing = count_optimum(rates, shape)
    assert existing.tolist() == [0] * 15 + [1] * 30 + [0] + [1] * 15 + [0] * 10


def test_the_study_runs_and_fills_its_page(tmp_path: Path) -> None:
    """In its smallest form, with a file of recorded rates, the study fills all of its page."""
    trace, page, results = tmp_path / "mine.txt", tmp_path / "study.md", tmp_path / "results"
    trace.write_text("\n".join(["40", "80"] * 720))
    page.write_text((ROOT / "docs" / "autoscale-study.md").read_text())
    argv = [sys.executable, ROOT / "tests" / "benchmarks" / "scaling", trace, "--scale", "0.001", "--no-plots"]
    argv += ["--results", results, "--docs", page]
    argv += [word for name in ("mine", "crowd", "constant") for word in ("--case", name)]
    subprocess.run(argv, check=True, timeout=300, stdout=subprocess.DEVNULL)
    assert sorted(path.stem for path in results.iterdir()) == ["constant", "crowd", "mine"]
    text = page.read_text()
    assert "### Recorded: mine, 1 days" in text
    assert len(re.findall(r"^\| (?:serf-haproxy|Knative|HPA)", text, re.MULTILINE)) == 14
    assert "came back 0 times" in text
