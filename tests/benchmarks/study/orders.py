"""The orders that the literature and the goals expect of the algorithms, checked on the results."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from study.tables import Group, Result, median, read_ms, show_ms


class Order(NamedTuple):
    """One expectation: in a case, a measure of one algorithm is at most `factor` times that of another.

    Attributes:
        case: The name of the case.
        load: The load, percent.
        lesser: The algorithm that should have less.
        greater: The other one.
        factor: See above.
        measure: "p99_ms", or "failed_percent".
        reason: Why this is expected.
        otherwise: What explains a deviation.
    """

    case: str
    load: int
    lesser: str
    greater: str
    factor: float
    measure: str
    reason: str
    otherwise: str


class Verdict(NamedTuple):
    """What was found.

    Attributes:
        order: The expectation.
        ratio: The median of the ratios of cells of one seed; `least` and `most` are their range.
        lesser: The median of the first algorithm; `greater` is that of the other one.
        holds: Whether it is as expected.
        seed_count: The number of seeds.
        void_count: The number of these of which a cell is void.
    """

    order: Order
    ratio: float
    least: float
    most: float
    lesser: float
    greater: float
    holds: bool
    seed_count: int
    void_count: int


ORDERS = (
    Order("slow", 50, "leastconn", "roundrobin", 1.0, "p99_ms", "It sees that requests pile up.", ""),
    Order(
        "slow", 50, "random(2)", "random(1)", 1.0, "p99_ms", "Two choices avoid the fuller queue (Mitzenmacher).", ""
    ),
    Order(
        "slow",
        50,
        "leastconn",
        "random(2)",
        1.0,
        "p99_ms",
        "It compares all servers, not two.",
        "",
    ),
    Order(
        "slow",
        50,
        "random(2)",
        "roundrobin",
        1.0,
        "p99_ms",
        "It goes to the slow server only when it draws it twice, or the other one is fuller.",
        "It draws the same server twice with one request of n²: of 5 servers 4 %, which is all that a slow one can do.",
    ),
    Order(
        "broken",
        50,
        "roundrobin",
        "leastconn",
        1.0,
        "failed_percent",
        "A server that fails at once has the fewest open requests, and attracts more of them.",
        "",
    ),
    Order(
        "slow",
        50,
        "leastconn + weights",
        "leastconn",
        0.5,
        "p99_ms",
        "leastconn equalises what is open, so a slow server keeps a share; measured weights take it away (goal).",
        "",
    ),
    Order(
        "slow",
        50,
        "random(2) + weights",
        "leastconn",
        0.5,
        "p99_ms",
        "The same with random(2) (goal).",
        "random may draw the slow server twice, so its weight has to be lower still; the seeds differ widely, and why "
        "is not settled.",
    ),
    Order(
        "broken",
        50,
        "leastconn + weights",
        "roundrobin",
        0.05,
        "failed_percent",
        "Errors count as slow: at most 1 % where roundrobin has 20 % (goal).",
        "leastconn takes a server without an open request first, whatever its weight, and a black hole never has "
        "one: no weight but 0 keeps requests away from it.",
    ),
    Order(
        "broken",
        50,
        "random(2) + weights",
        "roundrobin",
        0.05,
        "failed_percent",
        "Errors count as slow: at most 1 % where roundrobin has 20 % (goal).",
        "",
    ),
    *(
        order
        for load in (50, 75)
        for order in (
            Order(
                "equal",
                load,
                "leastconn",
                "random(2)",
                1.0,
                "p99_ms",
                "With equal servers the shortest of all queues is best.",
                "",
            ),
            Order(
                "equal",
                load,
                "random(2)",
                "random(1)",
                1.0,
                "p99_ms",
                "Two choices avoid the fuller queue (Mitzenmacher).",
                "",
            ),
            Order(
                "equal",
                load,
                "leastconn + weights",
                "leastconn",
                1.05,
                "p99_ms",
                "With equal servers measuring must not cost more than 5 % (goal).",
                "The ranges of the seeds say how much of it is chance.",
            ),
        )
    ),
)


def check_orders(groups: Sequence[Group], orders: Sequence[Order] = ORDERS) -> list[Verdict]:
    """Return a verdict for each expectation of which both algorithms have results of the same seeds."""
    verdicts = []
    for order in orders:
        for group in groups:
            if (group.case.name, group.load, group.count) == (order.case, order.load, 5):
                pairs = _pair(group.results.get(order.lesser, ()), group.results.get(order.greater, ()))
                if pairs:
                    verdicts.append(_judge(order, pairs))
    return verdicts


def _pair(lesser: Sequence[Result], greater: Sequence[Result]) -> list[tuple[Result, Result]]:
    others = {result["seed"]: result for result in greater}
    return [(result, others[result["seed"]]) for result in lesser if result["seed"] in others]


def _judge(order: Order, pairs: Sequence[tuple[Result, Result]]) -> Verdict:
    values = [(_read(one, order.measure), _read(other, order.measure)) for one, other in pairs]
    ratios = [_divide(one, other) for one, other in values]
    ratio = median(ratios)
    lesser, greater = (median([pair[side] for pair in values]) for side in (0, 1))
    void_count = sum(bool(one["is_void"] or other["is_void"]) for one, other in pairs)
    return Verdict(
        order, ratio, min(ratios), max(ratios), lesser, greater, ratio <= order.factor, len(pairs), void_count
    )


def _read(result: Result, measure: str) -> float:
    if measure == "failed_percent":
        return 100 * float(result["failed"]) / float(result["requests"])
    return read_ms(result, measure)


def _divide(one: float, other: float) -> float:
    """Return the ratio of two values, either of which may be infinite; two that are infinite are equal."""
    if one == other:
        return 1.0
    return 0.0 if math.isinf(other) else one / other if other else math.inf


def describe(verdict: Verdict) -> str:
    """Return a line of Markdown about a verdict."""
    order = verdict.order
    unit = " %" if order.measure == "failed_percent" else " ms"
    what = "failures" if order.measure == "failed_percent" else "p99"
    limit = "at most that" if order.factor == 1 else f"at most {order.factor:g} times that"
    found = f"{show_ms(verdict.lesser)}{unit} and {show_ms(verdict.greater)}{unit}"
    seeds = f"{verdict.seed_count} seed{'s' * (verdict.seed_count > 1)}"
    seeds += f", {verdict.void_count} of them void" if verdict.void_count else ""
    ratio = f"ratio {verdict.ratio:.2f}, {verdict.least:.2f} to {verdict.most:.2f} ({seeds})"
    mark = "Holds" if verdict.holds else "**Does not hold**"
    line = (
        f"- {mark}: {order.case}, {order.load} %: {what} of {order.lesser} {limit} of {order.greater}. {order.reason}"
    )
    deviation = f" {order.otherwise}" if not verdict.holds and order.otherwise else ""
    return f"{line} Found: {found}; {ratio}.{deviation}"
