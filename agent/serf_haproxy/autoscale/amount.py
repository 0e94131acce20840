"""How many servers are to come or go, and why. Pure."""

import math
from typing import NamedTuple

from serf_haproxy.autoscale.reading import Memory, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Tally

_CHANCE = 1.0  # so many standard deviations of a demand of random requests are a margin
_MARGIN = 0.5  # and so much of a server's capacity


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
    scaling, now_s = sight.scaling, sight.reading.now_s
    floor = scaling.find_floor(sight.reading.week_min)
    demand = sight.memory.course.find_peak(now_s, scaling.out_window_s)
    needed = max(floor, min(scaling.max, divide(demand, scaling.capacity)))
    return _grow(sight, needed, demand) if needed > sight.have else _shrink(sight, floor)


def divide(demand: float, capacity: float) -> int:
    """Return how many servers a demand needs."""
    return math.ceil(demand / capacity - 1e-9)  # 57 / (0.57 * 100) is a little more than 1


def _grow(sight: Sight, needed: int, demand: int) -> Verdict:
    """Return the verdict where there are too few servers."""
    scaling, tally, starts, now_s = sight.scaling, sight.tally, sight.memory.starts, sight.reading.now_s
    more = needed - sight.have
    new = max(0, more - tally.draining)  # those that drain come back first
    room = max(0, scaling.max - tally.existing)
    startable = min(room, starts.limit(new, tally.starting, now_s))
    asked = divide(demand, scaling.capacity)
    why = _say_demand(demand, scaling) if asked >= needed else f"{_say_count(needed, 'server')} are the fewest now"
    why = f"{why}; {sight.have} are there"
    why += f", and {scaling.max} are the most" if asked > needed else ""
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
    demand = course.find_peak(now_s, window_s)
    needed = max(floor, divide(_add_margin(demand, scaling), scaling.capacity))
    if needed == 0 and sight.have == 1:
        window_s = max(window_s, scaling.zero_after_s)
    if needed == 0:  # the last one goes alone
        needed = int(sight.have > 1 or course.find_peak(now_s, window_s) > 0)
    why = f"{_say_demand(demand, scaling)} in the last {window_s:g} s; {sight.have} are there"
    excess = sight.have - scaling.max
    if excess <= 0 and sight.have <= needed:
        until_s = course.steps[0][0] + window_s + 1 if course.steps and sight.have > floor else None
        return Verdict(sight.have, 0, 0, why, until_s)
    surplus = excess if excess > 0 else sight.have - needed
    number = min(surplus, scaling.at_once - tally.draining, tally.serving - (needed > 0))
    obstacle = _find_obstacle(sight, window_s, excess, number)
    if obstacle:
        why = f"no server is taken away: {obstacle.why}"
        return Verdict(min(sight.have, scaling.max), 0, 0, why, obstacle.until_s)
    why = f"{_say_count(scaling.max, 'server')} are the most; {sight.have} are there" if excess > 0 else why
    return Verdict(min(sight.have - number, scaling.max), -number, 0, why, None)


def _find_obstacle(sight: Sight, window_s: float, excess: int, number: int) -> _Obstacle | None:
    """Return what forbids to take servers away now; of servers beyond `max`, only what would lose requests."""
    scaling, tally, memory, now_s = sight.scaling, sight.tally, sight.memory, sight.reading.now_s
    obstacle = None
    if sight.reading.blind:
        obstacle = _Obstacle(sight.reading.blind)
    elif excess <= 0 and not memory.course.covers(now_s, window_s):
        since_s = now_s if memory.course.whole_since_s is None else memory.course.whole_since_s
        obstacle = _Obstacle(f"the demand of {window_s:g} s is not known yet", since_s + window_s)
    elif excess <= 0 and tally.starting:
        obstacle = _Obstacle(f"{_say_count(tally.starting, 'server')} still to come into service")
    elif excess <= 0 and now_s < memory.changed_s + scaling.cooldown_s:
        obstacle = _Obstacle("the last change is too recent", memory.changed_s + scaling.cooldown_s)
    elif tally.draining >= scaling.at_once:
        obstacle = _Obstacle(f"{_say_count(tally.draining, 'server')} still to be empty")
    elif number <= 0:
        obstacle = _Obstacle("it is the last one in service")
    return obstacle


def _add_margin(demand: int, scaling: Scaling) -> float:
    """Return the demand for which servers are left when one is taken away: with room for what chance adds to it."""
    return demand + _CHANCE * math.sqrt(demand) + _MARGIN * scaling.capacity if demand else 0.0


def _say_demand(demand: int, scaling: Scaling) -> str:
    servers = _say_count(divide(demand, scaling.capacity), "server")
    return f"{_say_count(demand, 'request')} at once need {servers} for {scaling.capacity:g} each"


def _say_count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
