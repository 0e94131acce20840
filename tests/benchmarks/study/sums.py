"""The sums of one cell: latency, shares, failures, and how fast the balancer turns away and comes back."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from measure import percentile

from serf_haproxy.lab.clients import Answer
from study.cases import SICK

if TYPE_CHECKING:
    from study.cell import Cell

STEP = 1.05  # from one class of the histogram to the next
PERCENTS = {"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 99.9}
_BUCKET_S = 1.0
_SETTLE_S = 2.0


def sum_up(
    cell: "Cell", answers: Sequence[Answer], marks_s: tuple[float, float], names: Sequence[str]
) -> dict[str, Any]:
    """Return the results of a cell, ready for JSON.

    Args:
        cell: The cell.
        answers: What came of all requests.
        marks_s: When the fault began and ended, seconds after the start.
        names: The servers at the start.
    """
    began_s, ended_s = marks_s
    from_s = began_s + (_SETTLE_S if cell.case.is_steady else 0.0)
    to_s = ended_s if cell.case.is_steady else cell.end_s()
    counted = [answer for answer in answers if from_s <= answer.at_s < to_s]
    took_s = [answer.took_s for answer in counted]
    failed = [answer for answer in answers if answer.fault]
    speeds = dict.fromkeys(names, 1.0) | ({SICK: cell.case.speed} if cell.case.has_sick else {})
    share = share_of(answers, began_s, SICK)
    return {
        "requests": len(counted),
        **{key: _milliseconds(percentile(took_s, percent)) for key, percent in PERCENTS.items()},
        "histogram": make_histogram(took_s),
        "failed": sum(bool(answer.fault) for answer in counted),
        "failed_in_all": len(failed),
        "failed_early": sum(began_s <= answer.at_s < began_s + _SETTLE_S for answer in failed),
        "faults": dict(collections.Counter(answer.fault for answer in failed).most_common(5)),
        "requests_in_all": len(answers),
        "shares": _shares(counted),
        "fairness": _round(fairness(collections.Counter(answer.server for answer in counted), speeds)),
        "moved_clients": count_moves([answer for answer in answers if answer.at_s >= began_s]),
        "marks_s": [round(began_s, 2), round(ended_s, 2)],
        "divert_s": _find_divert(answers, marks_s, 1 / len(names)) if cell.case.has_sick else None,
        "recover_s": _find_recovery(answers, ended_s, 1 / len(names)) if cell.case.has_sick else None,
        "share_of_sick": share,
    }


def make_histogram(took_s: Sequence[float]) -> dict[str, int]:
    """Return how many values are in each class; class N is from STEP^N milliseconds on, "inf" is for failures."""
    classes = collections.Counter(
        "inf" if math.isinf(each_s) else str(math.floor(math.log(max(1000 * each_s, 0.1), STEP))) for each_s in took_s
    )
    return dict(sorted(classes.items(), key=lambda pair: math.inf if pair[0] == "inf" else int(pair[0])))


def fairness(counts: Mapping[str, int], speeds: Mapping[str, float]) -> float:
    """Return Jain's index of the requests of each server divided by its speed: 1 is fair, 1/n is all to one.

    Servers of the speed 0 can do nothing and do not count.
    """
    loads = [counts.get(name, 0) / speed for name, speed in speeds.items() if speed]
    squares = sum(load**2 for load in loads)
    return sum(loads) ** 2 / (len(loads) * squares) if squares else 1.0


def count_moves(answers: Sequence[Answer]) -> int:
    """Return how many clients have met more than one server."""
    met: dict[int, set[str]] = collections.defaultdict(set)
    for answer in answers:
        if answer.server:
            met[answer.client].add(answer.server)
    return sum(len(servers) > 1 for servers in met.values())


def share_of(answers: Sequence[Answer], zero_s: float, name: str) -> list[tuple[int, float]]:
    """Return the share of a server in each second, counted from the fault on."""
    buckets: dict[int, list[bool]] = collections.defaultdict(list)
    for answer in answers:
        buckets[math.floor((answer.at_s - zero_s) / _BUCKET_S)].append(answer.server == name)
    return [(second, round(sum(hits) / len(hits), 3)) for second, hits in sorted(buckets.items())]


def _find_divert(answers: Sequence[Answer], marks_s: tuple[float, float], fair: float) -> float | None:
    """Return how long after the fault the sick server still got half a fair share in a second; None: to its end."""
    began_s, ended_s = marks_s
    last = -1
    for second in range(int(ended_s - began_s)):
        window = [a for a in answers if began_s + second <= a.at_s < began_s + second + _BUCKET_S]
        hits = sum(answer.server in (SICK, "") for answer in window)
        if window and hits / len(window) >= fair / 2:
            last = second
    return None if last + 1 >= int(ended_s - began_s) else last + 1


def _find_recovery(answers: Sequence[Answer], ended_s: float, fair: float) -> float | None:
    """Return in which second after the fault's end the server got half a fair share again; None: in none."""
    end_s = max(answer.at_s for answer in answers)
    for second in range(int(end_s - ended_s)):
        window = [a for a in answers if ended_s + second <= a.at_s < ended_s + second + _BUCKET_S]
        if window and sum(answer.server == SICK for answer in window) / len(window) >= fair / 2:
            return second + 1
    return None


def _shares(counted: Sequence[Answer]) -> dict[str, float]:
    counts = collections.Counter(answer.server or "none" for answer in counted)
    return {name: round(count / len(counted), 4) for name, count in sorted(counts.items())}


def _milliseconds(value_s: float) -> float | None:
    """Return milliseconds; None for an infinite time, which JSON cannot say."""
    return None if math.isinf(value_s) else round(1000 * value_s, 2)


def _round(value: float) -> float:
    return round(value, 4)
