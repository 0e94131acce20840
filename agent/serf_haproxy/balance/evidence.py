"""What is known of a server's requests: counts and waits of which older ones count less. Pure.

Requests are counted as waiting from when they are sent to a server until the head of an answer arrives. What follows,
for example a long download or a WebSocket, says nothing of the server. Connections of mode tcp have no answers: what
counts is how long they take to be accepted.
"""

import math
from typing import NamedTuple

from serf_haproxy.haproxy.traffic import Traffic

_CONNECT_S = 0.05  # connections that are accepted within this time are alike
_MEAN_COUNT = 512  # HAProxy's mean times are those of about so many requests
_LEAST_COUNT = 3.0  # so many requests of a server count at most when it gets hardly any
SPAN_S = 0.2  # a look speaks for so much time at most: what waits at a moment is chance, however long nobody looked
_FEW, _FAILING_SHARE, _HEALED_SHARE = 2.8, 0.5, 0.25  # three failures in a row, and so much of all requests
_REMEMBERED = 0.95  # of a request when another one has ended: twenty or so count
_FAILURE_SIGHTS = 4.0  # a failure is as certain as so many requests seen waiting


class Course(NamedTuple):
    """What is known of one server.

    Attributes:
        factor: The part of its weight that it gets, 0.01 to 1.
        traffic: Its counters as last seen; None before that.
        astray_count: Requests that ended without that any counter tells.
        is_failing: Whether most of its requests failed, until three of four end well again.
        waited_s: Time that requests have waited, in all; of this and the rest what is older counts less.
        ended_count: Requests that ended.
        failed_count: Those of them that failed.
        sight_count: Requests seen waiting at the moment of a look: how much `waited_s` can be relied on.
        last_ended_count: Requests that ended, of which older ones count less by their number, not by their age: a
            server that fails gets so few that each is forgotten before the next one.
        last_failed_count: Those of them that failed.
    """

    factor: float = 1.0
    traffic: Traffic | None = None
    astray_count: int = 0
    is_failing: bool = False
    waited_s: float = 0.0
    ended_count: float = 0.0
    failed_count: float = 0.0
    sight_count: float = 0.0
    last_ended_count: float = 0.0
    last_failed_count: float = 0.0

    @property
    def good_count(self) -> float:
        """Requests that ended well."""
        return max(0.0, self.ended_count - self.failed_count)

    @property
    def failed_share(self) -> float:
        """The part of its requests that failed, 0 to 1."""
        return self.failed_count / (self.ended_count or 1)

    @property
    def doubt(self) -> float:
        """How many times too high its cost may well seem: 1 and the relative error of what was seen."""
        return 1 + 1 / math.sqrt(1 + self.sight_count + _FAILURE_SIGHTS * self.failed_count)


class Look(NamedTuple):
    """What came between two looks at a server; names as in `Course`, `all_` without regard to the time between them."""

    waited_s: float = 0.0
    ended_count: float = 0.0
    failed_count: float = 0.0
    sight_count: int = 0
    astray_count: int = 0
    all_ended_count: int = 0
    all_failed_count: int = 0


def compare(course: Course, now: Traffic, elapsed_s: float) -> Look:
    """Return what came since the look before: nothing if there was none, or if the counters began anew.

    After a gap the requests that ended are counted in part, as the time for which others waited is.

    Args:
        course: What is known.
        now: The counters.
        elapsed_s: The time between the looks.
    """
    before = course.traffic
    if before is None or now.started_count < before.started_count or now.answered_count < before.answered_count:
        return Look(astray_count=max(0, _count_open(now) - now.current_count))
    astray_count = min(max(course.astray_count, _count_open(now) - now.current_count), _count_open(now))
    if elapsed_s <= 0:
        return Look(astray_count=astray_count)
    failed_count = max(0, now.failed_count - before.failed_count)
    if not now.is_http:
        return _compare_connections(before, now, failed_count)
    waiting = min(_count_open(now) - astray_count, now.current_count)
    former = min(max(0, _count_open(before) - course.astray_count), before.current_count)
    ended_count = now.answered_count + now.broken_count - before.answered_count - before.broken_count
    span_s = min(elapsed_s, SPAN_S)
    part = span_s / elapsed_s
    waited_s = (waiting + former) / 2 * span_s
    ended_count = max(ended_count, failed_count)
    counts = part * ended_count, part * failed_count
    return Look(waited_s, *counts, waiting, astray_count, ended_count, failed_count)


def _count_open(traffic: Traffic) -> int:
    """Return how many requests were sent of which no counter tells that they ended, or were answered."""
    return traffic.started_count - traffic.answered_count - traffic.broken_count if traffic.is_http else 0


def _compare_connections(before: Traffic, now: Traffic, failed_count: int) -> Look:
    """Return what came in mode tcp.

    A connection counts when it is made. How long that took HAProxy tells at its end.
    """
    made_count = now.started_count - before.started_count
    ended_before = max(0, before.started_count - before.current_count)
    ended_count = max(0, now.started_count - now.current_count - ended_before)
    mean_count = min(_MEAN_COUNT, max(1, ended_before))
    connect_ms = mean_count * (now.connect_ms - before.connect_ms) + ended_count * before.connect_ms
    waited_s = made_count * _CONNECT_S + (max(0, connect_ms) / 1000 if ended_count else 0.0)
    ended_count = max(made_count, failed_count)
    return Look(waited_s, ended_count, failed_count, made_count, 0, ended_count, failed_count)


def add(course: Course, look: Look, traffic: Traffic, aging: float) -> Course:
    """Return what is known after a look; `aging` is the time since the one before, in spans that a request counts."""
    kept = math.exp(-aging)
    ended_count = course.ended_count * kept + look.ended_count
    failed_count = course.failed_count * kept + look.failed_count
    remembered = _REMEMBERED**look.all_ended_count
    last_ended_count = course.last_ended_count * remembered + look.all_ended_count
    last_failed_count = course.last_failed_count * remembered + look.all_failed_count
    if course.is_failing:
        is_failing = failed_count >= _HEALED_SHARE * ended_count and failed_count > 0
    else:
        is_failing = last_failed_count >= max(_FEW, _FAILING_SHARE * last_ended_count)
    return Course(
        course.factor,
        traffic,
        look.astray_count,
        is_failing,
        course.waited_s * kept + look.waited_s,
        ended_count,
        failed_count,
        course.sight_count * kept + look.sight_count,
        last_ended_count,
        last_failed_count,
    )


def forget(course: Course, mean_count: float) -> Course:
    """Let no more requests of a server count than it would get now: those of better times say little of it.

    Args:
        course: What is known.
        mean_count: How many requests count of a server on average.
    """
    most = max(_LEAST_COUNT, 2 * course.factor * mean_count)
    kept = min(1.0, most / max(1.0, course.ended_count))
    return course._replace(
        waited_s=kept * course.waited_s,
        ended_count=kept * course.ended_count,
        failed_count=kept * course.failed_count,
        sight_count=kept * course.sight_count,
    )
