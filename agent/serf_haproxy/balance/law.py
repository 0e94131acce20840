"""The law of measured weights: from what HAProxy counts to a factor for each server's weight. Pure.

Little's law gives the mean wait for the first byte of an answer without any clock at the requests: the requests that
wait, integrated over time, divided by those that ended (`evidence`). A failed request costs as much as thirty usual
waits. A server that costs more than its peers gets less than its weight, never less than a hundredth, and gets it back
as it recovers. `docs/explanation/measured-weights.md` has the formulas and their reasons.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.balance.evidence import SPAN_S, Course, add, compare, forget
from serf_haproxy.haproxy.traffic import Traffic

FLOOR = 0.01  # of the weight stays: a slow server is still tried, so that it can come back
BAND = 1.5  # so many times the usual cost is no reason to do anything
_POWER = 3.0  # how steeply the factor falls with the cost
_FAILURE_COST = 30.0  # a failed request, in usual waits
_PRIOR = 1.0  # a server is taken for a usual one as strongly as by so many requests
_USUAL_RANK = 0.25  # the usual cost: that of the server at the end of the best quarter
_MEMORY_S, _FAILED_MEMORY_S, _MEMORY_MAX_S = 3.0, 5.0, 15.0  # how long a request counts
_SIGHT_COUNT = 30.0  # so many requests should have been seen waiting at a server: the error is then a sixth
_RATE_S = 3.0  # over which their rate is smoothed
_DOWN, _UP = 2.0, 1.0  # fastest change of a factor's logarithm, per second
_FAST_DOWN, _FAST_SHARE = 4.0, 0.25  # the same down, where so much of a server's requests failed
_PUSHED_SHARE = 0.5  # of the servers may be pushed below this factor
_PUSHED = 0.5
_KEPT = 0.1  # another server's goal must be below so much of a pushed one's goal to take its place
_CHANGE = 0.1  # smaller changes of a weight, relative to it, are not worth a command
_SHOWN_SHARE = 0.005  # of failed requests is worth a word
_LEAST_S = 0.0005  # waits below this are alike


class Pool(NamedTuple):
    """What is known of servers among which requests are shared.

    Attributes:
        courses: Each server, by name.
        usual_s: The usual wait for an answer; None while there was none.
        sight_rate: Requests seen waiting at a server in a second, on average.
    """

    courses: Mapping[str, Course] = {}
    usual_s: float | None = None
    sight_rate: float = 0.0


class Share(NamedTuple):
    """What a server gets, and why.

    Attributes:
        weight: The weight that it should have now.
        limit: The most that it may have: what operator and tags allow.
        factor: The part of that which the law gives it.
        wait_s: Its mean wait for an answer; None without a recent one.
        failed_share: The part of its requests that failed lately, 0 to 1.
        times: How many times the usual cost a request of it costs.
        is_spared: Whether it should get still less, but too many others do already.
        is_failing: Whether most of its requests fail: something that a person should know.
    """

    weight: int
    limit: int
    factor: float
    wait_s: float | None
    failed_share: float
    times: float
    is_spared: bool = False
    is_failing: bool = False

    def explain(self) -> str:
        """Return why a server gets what it gets, in one line."""
        if self.times <= BAND and self.is_failing:
            return f"{100 * self.failed_share:.0f} % of its requests fail, as at enough others"
        if self.times <= BAND:
            return "its requests cost no more than usual" if self.factor == 1 else "it recovers"
        why = f"a request costs {self.times:.1f} times the usual one"
        why += f", {100 * self.failed_share:.0f} % of them fail" if self.failed_share >= _SHOWN_SHARE else ""
        return f"{why}; it gets no less, since enough others do" if self.is_spared else why


def weigh(
    pool: Pool, traffic: Mapping[str, Traffic], limits: Mapping[str, int], elapsed_s: float
) -> tuple[Pool, dict[str, Share]]:
    """Return what is known after a look, and what each server should get.

    Servers that are down or drained are left alone, and so are all while no request came and none waits.

    Args:
        pool: What was known before.
        traffic: The counters of all servers of the pool.
        limits: The most that each server may have, 0 to 256; those that are not to be changed have none.
        elapsed_s: Time since the look before; 0 where there was none, or one of another worker.
    """
    ruled = [name for name, one in traffic.items() if limits.get(name) and one.weight and one.is_up]
    courses = {name: _start(traffic[name], limits[name], pool.courses.get(name)) for name in ruled}
    looks = {name: compare(courses[name], traffic[name], elapsed_s) for name in ruled}
    if not any(look.ended_count or look.waited_s for look in looks.values()):
        kept = {
            name: courses[name]._replace(traffic=traffic[name], astray_count=looks[name].astray_count) for name in ruled
        }
        return pool._replace(courses=kept), {}
    seen = sum(look.sight_count for look in looks.values()) / len(ruled) / elapsed_s
    sight_rate = pool.sight_rate + (seen - pool.sight_rate) * -math.expm1(-elapsed_s / _RATE_S)
    courses = {
        name: add(course, looks[name], traffic[name], elapsed_s / _choose_memory(sight_rate, course))
        for name, course in courses.items()
    }
    mean_count = sum(course.ended_count for course in courses.values()) / len(courses)
    courses = {name: forget(course, mean_count) for name, course in courses.items()}
    usual_s = _find_usual_wait(courses) or pool.usual_s
    if usual_s is None:
        return Pool(courses, None, sight_rate), {}
    costs = {name: _find_cost(course, usual_s) for name, course in courses.items()}
    usual_cost = _rank(costs.values())
    times = {name: cost / usual_cost for name, cost in costs.items()}
    targets = {name: _find_target(times[name] / courses[name].doubt) for name in times}
    spared = _spare(targets, courses)
    shares = {}
    for name, course in courses.items():
        target = max(targets[name], _PUSHED) if name in spared else targets[name]
        down = _FAST_DOWN if course.failed_share >= _FAST_SHARE else _DOWN
        factor = _approach(course.factor, target, elapsed_s, down)
        weight = _choose_weight(factor, limits[name], traffic[name].weight)
        wait_s = course.waited_s / course.ended_count if course.ended_count > 0.5 else None
        told = wait_s, course.failed_share, times[name], name in spared, course.is_failing
        shares[name] = Share(weight, limits[name], factor, *told)
    courses = {name: course._replace(factor=shares[name].factor) for name, course in courses.items()}
    return Pool(courses, usual_s, sight_rate), shares


def _start(traffic: Traffic, limit: int, course: Course | None) -> Course:
    """Return what is known of a server; of a new one, that it has the weight that it has."""
    return course or Course(min(1.0, max(FLOOR, traffic.weight / limit)))


def _choose_memory(sight_rate: float, course: Course) -> float:
    """Return how long a request counts: until enough have been seen waiting.

    A server that is pushed down gets too few for that. What it did before it healed must not keep it there; but each
    time that one is tried that still fails costs a request.
    """
    most_s = _MEMORY_MAX_S
    if course.factor < _PUSHED:
        most_s = _FAILED_MEMORY_S if course.failed_share >= _FAST_SHARE else _MEMORY_S
    return min(most_s, max(_MEMORY_S, _SIGHT_COUNT / max(sight_rate, 0.001)))


def _find_usual_wait(courses: Mapping[str, Course]) -> float | None:
    """Return the usual wait for an answer that is none of an error; None without any."""
    count = sum(course.good_count for course in courses.values())
    if count < 0.5:
        return None
    mean_s = sum(course.waited_s for course in courses.values()) / count
    waits = [(course.waited_s + _PRIOR * mean_s) / (course.good_count + _PRIOR) for course in courses.values()]
    return max(_LEAST_S, _rank(waits))


def _find_cost(course: Course, usual_s: float) -> float:
    """Return what a request of a server costs, in seconds of waiting."""
    paid = course.waited_s + _FAILURE_COST * usual_s * course.failed_count + _PRIOR * usual_s
    return max(_LEAST_S, paid / (course.ended_count + _PRIOR))


def _rank(values: Iterable[float]) -> float:
    """Return the value at the end of the best quarter."""
    ordered = sorted(values)
    return ordered[int(_USUAL_RANK * (len(ordered) - 1))]


def _find_target(times: float) -> float:
    return 1.0 if times <= BAND else max(FLOOR, (BAND / times) ** _POWER)


def _spare(targets: Mapping[str, float], courses: Mapping[str, Course]) -> frozenset[str]:
    """Return the servers that must not be pushed down, because enough others are: those that cost least of them.

    A server that is down gets few requests, so that its goal is uncertain: it keeps its place until it is back, or one
    comes that is far worse. Otherwise equally bad servers would take turns, the one still down while the other falls.
    """
    low = {name for name in targets if courses[name].factor < _PUSHED}
    pushed = sorted(
        (target * (_KEPT if name in low else 1.0), name)
        for name, target in targets.items()
        if name in low or target < _PUSHED
    )
    most = int(_PUSHED_SHARE * len(targets))
    return frozenset(name for _, name in pushed[most:] if targets[name] < _PUSHED)


def _approach(factor: float, target: float, elapsed_s: float, down: float) -> float:
    """Return the next factor, nearer to its goal.

    Queues follow a weight with a delay. Near full load a server that loses its part too fast fills those of the others,
    which then seem slow: all fall in turns. A server that fails has no queue.
    """
    step = math.log(target / factor)
    factor *= math.exp(min(_UP * elapsed_s, max(-down * min(elapsed_s, SPAN_S), step)))
    return min(1.0, max(FLOOR, factor))


def _choose_weight(factor: float, limit: int, present: int) -> int:
    wanted = max(1, round(factor * limit))
    is_due = wanted in (1, limit) or present > limit or abs(wanted - present) > _CHANGE * present
    return wanted if is_due else present
