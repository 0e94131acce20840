"""From what is seen to slots: what the executor, HAProxy and the orders say of each become one state. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from serf_haproxy.autoscale.executor import is_slot, list_slots
from serf_haproxy.autoscale.gauge import Gauge, Row
from serf_haproxy.autoscale.law import Verb
from serf_haproxy.autoscale.slots import Slot, State
from serf_haproxy.autoscale.wire import Load
from serf_haproxy.services.scaling import Scale

_PART = 0.3  # so much does a shorter start count
_NO_ROW = Row(is_open=False, in_flight=0)


class Sight(NamedTuple):
    """What is seen of one service.

    Attributes:
        filled: The slots that the executor has filled, and whether what is in each runs.
        busy: What the executor is being told to do, by slot.
        gauge: The load at this balancer.
        loads: The loads at the other balancers that have said them.
        ours: The slots that an order of the autoscaler drains.
        kept: The nodes that an order of an operator keeps out of service.
        served: The slots whose servers have been in service since they were started.
    """

    filled: Mapping[str, bool]
    busy: Mapping[str, Verb]
    gauge: Gauge
    loads: Mapping[str, Load]
    ours: Collection[str]
    kept: Collection[str]
    served: Collection[str] = ()


def find_slots(scale: Scale, sight: Sight, before: Mapping[str, Slot], now_s: float) -> tuple[Slot, ...]:
    """Return the slots in the order in which they are to be filled, with those beyond `max` that exist.

    A slot of which a server is in service that this executor has not started, such as one on another host, is left out.

    Args:
        scale: How the service scales.
        sight: What is seen.
        before: The slots as they were, which say since when they are in their states.
        now_s: The time, by a clock that only goes forward.
    """
    named = list_slots(scale)
    surplus = {*sight.filled, *sight.ours, *sight.busy} - set(named)
    names = [*named, *sorted((name for name in surplus if is_slot(scale, name)), key=lambda name: (len(name), name))]
    slots = []
    for name in names:
        row = sight.gauge.servers.get(name, _NO_ROW)
        if row.is_open and name not in sight.filled and name not in sight.busy and name not in sight.ours:
            continue
        state = _find_state(name, row, sight)
        drains_everywhere = state is State.DRAINING and all(name in load.drained for load in sight.loads.values())
        in_flight = row.in_flight + sum(load.drained.get(name, 0) for load in sight.loads.values())
        was = before.get(name)
        since_s = was.since_s if was is not None and was.state is state else now_s
        if state is State.DRAINING and (row.is_open or not drains_everywhere):
            since_s = now_s  # its time begins when no balancer gives it new requests
        is_empty = state is State.DRAINING and drains_everywhere and not row.is_open and not in_flight
        # A server that is down after it has served may serve at another balancer: it is no capacity, and is left alone.
        is_down = state is State.STARTING and name in sight.served and name not in sight.busy
        slots.append(Slot(name, state, since_s, in_flight, is_empty, is_down or name in sight.kept))
    return tuple(slots)


def _find_state(name: str, row: Row, sight: Sight) -> State:
    verb = sight.busy.get(name)
    if verb is Verb.STOP:
        return State.STOPPING
    if name in sight.ours and (name in sight.filled or row.is_open):
        return State.DRAINING
    if row.is_open:
        return State.SERVING
    if verb is Verb.START:
        return State.STARTING
    if name not in sight.filled:
        return State.ABSENT
    return State.STARTING if sight.filled[name] else State.FAILED


def find_fixed(sight: Sight, slots: Collection[Slot]) -> int:
    """Return how many servers are in service that are no slots: they carry a part of the demand, and are left alone."""
    named = {slot.name for slot in slots}
    return sum(row.is_open and name not in named for name, row in sight.gauge.servers.items())


def measure_start(
    start_s: float | None, before: Collection[Slot], slots: Collection[Slot], served: Collection[str]
) -> float | None:
    """Return how long servers take from their start until they are in service; None before one has been seen.

    A longer start counts at once, shorter ones bit by bit: the starts of several disturb each other.

    Args:
        start_s: What was known.
        before: The slots as they were.
        slots: The slots as they are.
        served: The slots whose servers were in service before: those come back, and do not start.
    """
    began_s = {slot.name: slot.since_s for slot in before if slot.state is State.STARTING and slot.name not in served}
    for slot in slots:
        if slot.state is State.SERVING and slot.name in began_s:
            took_s = slot.since_s - began_s[slot.name]
            start_s = took_s if start_s is None else max(took_s, start_s + _PART * (took_s - start_s))
    return start_s
