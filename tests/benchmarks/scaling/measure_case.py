"""Run a case with every law, and say what came out in numbers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from scaling.cases import Case
from scaling.controllers import HPA, Knative, Ours
from scaling.optimum import count_optimum
from scaling.service import Array, Controller, Course, Shape, simulate

_IDLE_P99 = 4.605  # of exponential times, in means


class Run(NamedTuple):
    """One law before one load."""

    law: str
    course: Course
    figures: dict[str, Any]


def run_case(case: Case, seed: int = 1) -> tuple[Array, Array, list[Run]]:
    """Return the rates, the servers of the optimum, and the runs."""
    rates = case.make()
    optimum = count_optimum(rates, case.shape)
    runs = []
    for law, controller in _list_laws(case):
        course = simulate(rates, case.shape, controller, int(optimum[0]), seed)
        runs.append(Run(law, course, _measure(case, course, optimum)))
    return rates, optimum, runs


def _list_laws(case: Case) -> Iterator[tuple[str, Controller]]:
    for window_s in case.in_windows_s:
        name = "serf-haproxy" if window_s == case.in_windows_s[0] else f"serf-haproxy, {window_s:g} s"
        yield name, Ours(case.shape, in_window_s=window_s)
    yield "Knative", Knative(case.shape)
    yield "HPA", HPA(case.shape)


def _measure(case: Case, course: Course, optimum: Array) -> dict[str, Any]:
    waits, shape = course.find_waits(), case.shape
    hours = len(waits) * shape.step_s / 3600
    figures: dict[str, Any] = {
        "cost": round(float(course.existing.sum() / optimum.sum()), 3),
        "servers_mean": round(float(course.existing.mean()), 1),
        "servers_most": int(course.existing.max()),
        "p99": round(course.find_latency(0.99) / (_IDLE_P99 * shape.service_s), 3),
        "p999": round(course.find_latency(0.999) / (1.5 * _IDLE_P99 * shape.service_s), 3),
        "wait_mean_ms": round(1000 * float((waits * course.arrivals).sum() / course.arrivals.sum()), 2),
        "wait_most_s": round(float(waits.max()), 2),
        "queue_s": round(float((course.queue > np.sqrt(course.serving * shape.maxconn)).sum() * shape.step_s), 0),
        "starts_per_hour": round(float(course.started.sum() / hours), 1),
        "turns": count_turns(course),
    }
    if case.change_s is not None:
        figures["queue_empty_s"] = _time_queue(course, case.change_s, shape)
    return figures


def count_turns(course: Course) -> int:
    """Return how often, from minute ten on, servers started within half an hour after others had gone."""
    less = np.flatnonzero(np.diff(course.serving) < 0) + 1
    more = np.flatnonzero(course.started > 0)
    turns, last = 0, 600
    for step in more[more >= last]:
        since = less[(less >= last) & (less < step)]
        if len(since) and step - since[-1] <= 1800:
            turns, last = turns + 1, int(step)
    return turns


def _time_queue(course: Course, change_s: int, shape: Shape) -> float:
    """Return for how long after a sudden load more requests wait than chance explains; the last second of it counts."""
    begin = round(change_s / shape.step_s)
    after = slice(begin, begin + round(300 / shape.step_s))
    long = np.flatnonzero(course.queue[after] > np.sqrt(course.serving[after] * shape.maxconn))
    return float((long[-1] + 1) * shape.step_s) if len(long) else 0.0
