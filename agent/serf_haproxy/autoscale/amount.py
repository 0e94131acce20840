"""How many servers are to come or go, and why. Pure."""

import math
from typing import NamedTuple

from serf_haproxy.autoscale.course import MEAN_S
from serf_haproxy.autoscale.queue import count_enders, is_long
from serf_haproxy.autoscale.reading import Memory, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Tally

# With these numbers random requests at a constant rate bring no server back that has gone: docs/autoscale-study.md.
_CHANCE = 6.0  # so many standard deviations of the mean demand of random requests are a margin
_MARGIN = 0.2  # and so much of a server
_SHORT_S, _LONG_S = 0.5, 10.0  # requests that are shorter or longer count as these: looks are rare, room is dear
_PLAY = 40  # one server in so many is neither started nor ended: loads wander by a part of themselves, beside chance
_PART = 5  # of ten servers and more, one in so many may drain at the same time
_CALM = 0.94  # of the share of its places that a peak may take: a server goes only below that


class Sight(NamedTuple):
    """What a service is judged by: its rules, what is seen of it, its slots counted, what is remembered of it."""

    scaling: Scaling
    reading: Reading
    tally: Tally
    memory: Memory

    @property
    def have(self) -> int:
        """How many servers are in service or start."""
        return self.tally.serving + self.tally.starting


class Verdict(NamedTuple):
    """How many servers are to come and go; which ones is chosen after that.

    Attributes:
        wanted: How many servers should be in service, `min` to `max`.
        more: How many are to come; negative: how many are to be drained.
        startable: How many slots may be started now.
        reason: Why, in one line.
        until_s: When the verdict may become another one though the demand stays; None if it does not.
    """

    wanted: int
    more: int
    startable: int
    reason: str
    until_s: float | None


class _Obstacle(NamedTuple):
    """Why no server is taken away now, and until when; None: until something else changes."""

    why: str
    until_s: float | None = None


def judge(sight: Sight) -> Verdict:
    """Return how many servers are to come and go."""
    scaling, course, now_s = sight.scaling, sight.memory.course, sight.reading.now_s
    floor = scaling.find_floor(sight.reading.week_min)
    peak = course.find_peak(now_s, scaling.out_window_s)
    due, why = divide(_find_level(sight, peak), scaling.capacity), ""
    asked = max(min(due, sight.have), due - due // _PLAY)
    if is_long(peak, scaling.server_maxconn * sight.have):
        enders = count_enders(scaling, sight.reading, sight.tally, sight.memory.flow)
        asked = int(max(asked, min(enders, divide(peak, scaling.peak_capacity))))
        why = f"{_say_count(peak, 'request')} at once are more than {_say_count(sight.have, 'server')} can take"
    why = why or f"{_find_level(sight, peak):.1f} requests at once, on average, need {_say_count(due, 'server')}"
    needed = max(floor, min(scaling.max, asked))
    if needed <= sight.have:
        return _shrink(sight, floor)
    why = why if asked >= needed else f"{_say_count(needed, 'server')} {'is' if needed == 1 else 'are'} the fewest now"
    return _grow(sight, needed, f"{why}; {scaling.max} are the most" if asked > needed else why)


def divide(demand: float, capacity: float) -> int:
    """Return how many servers a demand needs."""
    return math.ceil(demand / capacity - 1e-9)  # 57 / (0.57 * 100) is a little more than 1


def _find_level(sight: Sight, peak: int) -> float:
    """Return the mean demand, of a load that is still there."""
    return min(peak, sight.memory.course.mean or 0.0)


def _grow(sight: Sight, needed: int, why: str) -> Verdict:
    """Return the verdict where there are too few servers."""
    scaling, tally, starts, now_s = sight.scaling, sight.tally, sight.memory.starts, sight.reading.now_s
    more = needed - sight.have
    new = max(0, more - tally.draining)  # those that drain come back first
    room = max(0, scaling.max - tally.existing)
    startable = min(room, starts.limit(new, tally.starting, now_s))
    why = f"{why}; {sight.have} are there"
    if startable == new:
        return Verdict(needed, more, startable, why, None)
    if room < new and startable == room:
        return Verdict(needed, more, startable, f"{why}; {tally.existing} of {scaling.max} slots are taken", None)
    why += f"; {starts.row} starts in a row failed" if starts.row > 1 else "; a start failed"
    if now_s < starts.retry_s:
        return Verdict(needed, more, 0, f"{why}: the next one is after a pause", starts.retry_s)
    return Verdict(needed, more, startable, f"{why}: one is tried at a time", None)


def _shrink(sight: Sight, floor: int) -> Verdict:
    """Return the verdict where there are enough servers, or too many."""
    scaling, tally, course, now_s = sight.scaling, sight.tally, sight.memory.course, sight.reading.now_s
    window_s = scaling.in_window_s
    peak = course.find_peak(now_s, window_s)
    needed = max(floor, _count_kept(peak, course.mean or 0.0, sight))
    if needed == 0 and sight.have == 1:
        window_s = max(window_s, scaling.zero_after_s)
    if needed == 0:  # the last one goes alone
        needed = int(sight.have > 1 or course.find_peak(now_s, window_s) > 0)
    why = f"up to {_say_count(peak, 'request')} at once in the last {window_s:g} s, {course.mean or 0:.1f} on average"
    why += f", need {_say_count(needed, 'server')}; {sight.have} are there"
    excess = sight.have - scaling.max
    if excess <= 0 and sight.have <= needed:
        until_s = course.peaks[0][0] + window_s + 1 if course.peaks and sight.have > floor else None
        return Verdict(sight.have, 0, 0, why, until_s)
    surplus = excess if excess > 0 else sight.have - needed
    places = max(scaling.at_once, sight.have // _PART) - tally.draining
    number = min(surplus, places, tally.serving - (needed > 0))
    obstacle = _find_obstacle(sight, window_s, places, number)
    if obstacle:
        why = f"no server is taken away: {obstacle.why}"
        return Verdict(min(sight.have, scaling.max), 0, 0, why, obstacle.until_s)
    why = f"{_say_count(scaling.max, 'server')} are the most; {sight.have} are there" if excess > 0 else why
    return Verdict(min(sight.have - number, scaling.max), -number, 0, why, None)


def _count_kept(peak: int, mean: float, sight: Sight) -> int:
    """Return how many servers are kept: with room for what chance and time add to the mean, and for the peak."""
    if not peak:
        return 0
    scaling, mean = sight.scaling, min(mean, peak)  # a queue that is over no longer counts
    margin = _CHANCE * _find_spread(mean, sight.reading.work_s) + _MARGIN * scaling.capacity
    due = divide(mean, scaling.capacity)
    kept = max(due + due // _PLAY, divide(mean + margin, scaling.capacity))
    return max(kept, divide(peak, _CALM * scaling.peak_capacity))


def _find_spread(mean: float, work_s: float | None) -> float:
    """Return the standard deviation of the mean of a minute, of random requests: the longer they are, the fewer end."""
    span_s = min(_LONG_S, max(_SHORT_S, work_s or 0.0))
    return math.sqrt(mean * span_s / (span_s + MEAN_S))


def _find_obstacle(sight: Sight, window_s: float, places: int, number: int) -> _Obstacle | None:
    """Return what forbids to take servers away now; of servers beyond `max`, only what would lose requests."""
    scaling, tally, memory, now_s = sight.scaling, sight.tally, sight.memory, sight.reading.now_s
    excess, obstacle = sight.have - scaling.max, None
    if sight.reading.blind:
        obstacle = _Obstacle(sight.reading.blind)
    elif excess <= 0 and not memory.course.covers(now_s, window_s):
        since_s = now_s if memory.course.whole_since_s is None else memory.course.whole_since_s
        obstacle = _Obstacle(f"the demand of {window_s:g} s is not known yet", since_s + window_s)
    elif excess <= 0 and tally.starting:
        obstacle = _Obstacle(f"{_say_count(tally.starting, 'server')} still to come into service")
    elif excess <= 0 and now_s < memory.changed_s + scaling.cooldown_s:
        obstacle = _Obstacle("the last change is too recent", memory.changed_s + scaling.cooldown_s)
    elif places <= 0:
        obstacle = _Obstacle(f"{_say_count(tally.draining, 'server')} still to be empty")
    elif number <= 0:
        obstacle = _Obstacle("it is the last one in service")
    return obstacle


def _say_count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
