"""The results of several seeds together: medians, ranges, and the tables of the page."""

import collections
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from measure import format_table

from study.cases import SICK, Case
from study.sums import STEP

ENOUGH_COUNT = 20_000  # requests for a p99.9
Result = Mapping[str, Any]


class Group(NamedTuple):
    """The results that are compared: those of one case, load and number of servers."""

    case: Case
    load: int
    count: int
    results: Mapping[str, Sequence[Result]]  # by algorithm, sorted by seed

    @property
    def name(self) -> str:
        """Its name in the names of files."""
        return f"{self.case.name}-{self.load}-{self.count}"


def group_results(
    cases: Iterable[Case], found: Mapping[str, Mapping[str, Result]], order: Sequence[str]
) -> list[Group]:
    """Return the groups that have results, in the order of the cases; `order` is that of the algorithms."""
    groups = []
    for case in cases:
        for load, count in case.loads:
            by_algorithm: dict[str, list[Result]] = collections.defaultdict(list)
            for result in sorted(found.get(case.name, {}).values(), key=lambda one: int(one["seed"])):
                if (result["load"], result["count"]) == (load, count):
                    by_algorithm[result["algorithm"]].append(result)
            if by_algorithm:
                known = {name: by_algorithm[name] for name in order if name in by_algorithm}
                groups.append(Group(case, load, count, known))
    return groups


def read_ms(result: Result, key: str) -> float:
    """Return a latency, milliseconds; infinite where failures reach this percentile."""
    return math.inf if result[key] is None else float(result[key])


def median(values: Sequence[float]) -> float:
    """Return the median; of two values in the middle the mean, or the greater one if it is infinite."""
    return statistics.median(values) if math.isfinite(statistics.median_high(values)) else math.inf


def median_ms(results: Sequence[Result], key: str) -> float:
    """Return the median over the seeds."""
    return median([read_ms(result, key) for result in results])


def pooled_ms(results: Sequence[Result], percent: float) -> float:
    """Return a percentile of the requests of all seeds, milliseconds, to the width of a class of the histogram."""
    classes: collections.Counter[float] = collections.Counter()
    for result in results:
        for name, count in result["histogram"].items():
            classes[math.inf if name == "inf" else STEP ** (int(name) + 1)] += count
    wanted = math.ceil(classes.total() * percent / 100)
    reached = 0
    for value_ms, count in sorted(classes.items()):
        reached += count
        if reached >= wanted:
            return value_ms
    return math.inf


def show_ms(value_ms: float) -> str:
    """Return a latency as text."""
    return "∞" if math.isinf(value_ms) else f"{value_ms:,.0f}"


def count_void(results: Iterable[Result]) -> int:
    """Return how many results are void: the machine was too busy for them."""
    return sum(bool(result["is_void"]) for result in results)


def tabulate(group: Group) -> str:
    """Return the table of a group in Markdown."""
    has_sick, has_cookie = group.case.has_sick, bool(group.case.cookie)
    header = ["algorithm", "seeds", "void", "requests", "p50, ms", "p99, ms", "range of p99", "p99.9, ms", "failed, %"]
    header += ["share of s1, %", "s left it after", "s came back after"] if has_sick else []
    header += ["fairness"] + (["clients that moved"] if has_cookie else [])
    rows = []
    for name, results in group.results.items():
        p99 = [read_ms(result, "p99_ms") for result in results]
        total = sum(result["requests"] for result in results)
        row: list[object] = [name, len(results), count_void(results) or "-", f"{total:,}"]
        row += [show_ms(median_ms(results, key)) for key in ("p50_ms", "p99_ms")]
        row.append(f"{show_ms(min(p99))} to {show_ms(max(p99))}")
        row.append(show_ms(pooled_ms(results, 99.9)) if total >= ENOUGH_COUNT else "-")
        row.append(f"{100 * sum(result['failed'] for result in results) / total:.2f}")
        if has_sick:
            row.append(f"{100 * statistics.median(result['shares'].get(SICK, 0.0) for result in results):.1f}")
            row += [_show_seconds(results, key) for key in ("divert_s", "recover_s")]
        row.append(f"{statistics.median(result['fairness'] for result in results):.3f}")
        if has_cookie:
            row.append(f"{statistics.median(result['moved_clients'] for result in results):.0f}")
        rows.append(row)
    return format_table(header, rows)


def _show_seconds(results: Sequence[Result], key: str) -> str:
    """Return the median of times; a result without one counts as never."""
    value_s = median([math.inf if result[key] is None else float(result[key]) for result in results])
    return "never" if math.isinf(value_s) else f"{value_s:g}"
