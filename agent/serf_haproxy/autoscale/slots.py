"""Slots: places for servers, by name, that an executor fills and empties; which of them to choose. Pure."""

import enum
import heapq
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from serf_haproxy.autoscale.scaling import Scaling


class State(enum.Enum):
    """What is in a slot."""

    ABSENT = "absent"
    """Nothing: it may be started."""
    STARTING = "starting"
    """The executor was told to start it, and HAProxy does not send it requests yet."""
    SERVING = "serving"
    """HAProxy sends it requests."""
    DRAINING = "draining"
    """An order of the autoscaler's drains it; this is also its state after a stop that failed."""
    STOPPING = "stopping"
    """The executor was told to stop it."""
    FAILED = "failed"
    """Its start failed, or it ended by itself; it has no requests."""


class Slot(NamedTuple):
    """One slot.

    Attributes:
        name: Its name, as the executor has it.
        state: What is in it.
        since_s: Since when it is in this state, by the clock of the readings.
        in_flight: Its requests, at all balancers together.
        is_empty: Whether every balancer says that it has none; counts while it drains.
        is_kept: Whether an operator's order keeps it out of service: it is no capacity, and is left alone.
    """

    name: str
    state: State
    since_s: float = 0.0
    in_flight: int = 0
    is_empty: bool = False
    is_kept: bool = False


class Tally(NamedTuple):
    """Slots, counted.

    Attributes:
        serving: Those in service.
        starting: Those that start and are within their limit.
        draining: Those that drain.
        existing: All that exist in any way: what `max` limits.
        youngest_s: When the youngest one of those in service came there; None without any.
        failed: The names, and since when, of those that failed or start for too long.
        drained: The names of those whose drain is over.
        starting_s: When each of those that start began.
    """

    serving: int = 0
    starting: int = 0
    draining: int = 0
    existing: int = 0
    youngest_s: float | None = None
    failed: tuple[tuple[str, float], ...] = ()
    drained: tuple[str, ...] = ()
    starting_s: tuple[float, ...] = ()


def count(slots: Iterable[Slot], scaling: Scaling, now_s: float) -> Tally:
    """Return slots, counted."""
    serving = starting = draining = existing = 0
    youngest_s: float | None = None
    failed: list[tuple[str, float]] = []
    drained: list[str] = []
    starting_s: list[float] = []
    for slot in slots:
        if slot.state is State.ABSENT:
            continue
        existing += 1
        if slot.is_kept:
            continue
        if slot.state is State.SERVING:
            serving += 1
            youngest_s = slot.since_s if youngest_s is None else max(youngest_s, slot.since_s)
        elif slot.state is State.FAILED or (
            slot.state is State.STARTING and now_s - slot.since_s >= scaling.start_limit_s
        ):
            failed.append((slot.name, slot.since_s))
        elif slot.state is State.STARTING:
            starting += 1
            starting_s.append(slot.since_s)
        elif slot.state is State.DRAINING:
            draining += 1
            if _is_drained(slot, scaling, now_s):
                drained.append(slot.name)
    return Tally(serving, starting, draining, existing, youngest_s, tuple(failed), tuple(drained), tuple(starting_s))


def _is_drained(slot: Slot, scaling: Scaling, now_s: float) -> bool:
    age_s = now_s - slot.since_s
    return age_s >= scaling.drain_limit_s or (slot.is_empty and age_s >= scaling.drain_least_s)


def choose_starts(slots: Sequence[Slot], number: int, distrusted: Collection[str]) -> list[str]:
    """Return absent slots to start: the first ones, those that failed lately last; none that an order keeps out."""
    absent = [slot.name for slot in slots if slot.state is State.ABSENT and not slot.is_kept]
    return sorted(absent, key=lambda name: name in distrusted)[:number]


def choose_victims(slots: Iterable[Slot], number: int) -> list[str]:
    """Return slots in service to drain: those with the least in flight, of these the newest, then the last."""
    serving = [
        (slot.in_flight, -slot.since_s, -place, slot.name)
        for place, slot in enumerate(slots)
        if slot.state is State.SERVING and not slot.is_kept
    ]
    return [name for *_, name in heapq.nsmallest(number, serving)]


def choose_returns(slots: Iterable[Slot], number: int) -> list[str]:
    """Return draining slots that come back into service: those that drain shortest."""
    draining = [
        (-slot.since_s, place, slot.name)
        for place, slot in enumerate(slots)
        if slot.state is State.DRAINING and not slot.is_kept
    ]
    return [name for *_, name in heapq.nsmallest(number, draining)]
