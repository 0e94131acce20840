"""The notes of the autoscaler: a file that says what it sees and decides, from which its next process goes on.

What the law remembers is not in it: the law takes nothing away before it has seen a whole window. Its times are those
of the monotonic clock, so another boot begins anew. Reading it trusts nothing in it.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from serf_haproxy.autoscale.pilot import Pilot
from serf_haproxy.autoscale.slots import Slot, State
from serf_haproxy.control.record import DAMAGE
from serf_haproxy.control.scaled import read_counts
from serf_haproxy.system.files import read_text, set_aside, write_quickly

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Kept(NamedTuple):
    """What is remembered of one service.

    Attributes:
        slots: The slots, with the time since when each is in its state.
        served: The slots whose servers have been in service.
        counts: How often what was decided, and what came of it.
        start_s: How long servers take to start; None where that is not known.
    """

    slots: tuple[Slot, ...] = ()
    served: frozenset[str] = frozenset()
    counts: Mapping[str, int] = {}
    start_s: float | None = None


def write_notes(path: str, pilots: Mapping[str, Pilot], at_s: float, *, is_deciding: bool, why: str) -> None:
    """Write the notes.

    Args:
        path: The file.
        pilots: The pilots, by service.
        at_s: The time, seconds since the epoch.
        is_deciding: Whether this balancer decides.
        why: Which one does, or why nothing is done.

    What is in the place of the file and is none is set aside.

    Raises:
        SystemFault: They cannot be written.
    """
    services = {name: _describe(pilot) for name, pilot in pilots.items()}
    notes = {"version": 1, "boot": read_boot(), "at_s": at_s, "is_deciding": is_deciding, "why": why}
    set_aside(path)
    write_quickly(path, json.dumps(notes | {"services": services}) + "\n")


def read_kept(notes: Mapping[str, Any], service: str, now_s: float) -> Kept:
    """Return what is remembered of a service, if it is of this boot and from the last minutes."""
    try:
        noted = notes["services"][service]
        told = noted["kept"]
        noted_s = float(told["now_s"])
        if notes["boot"] != read_boot() or not now_s - 60 < noted_s <= now_s:
            return Kept()
        slots = tuple(Slot(str(name), State(state), float(at_s)) for name, state, at_s in told["slots"])
        start_s = None if told.get("start_s") is None else max(0.0, float(told["start_s"]))
        return Kept(slots, frozenset(map(str, told["served"])), read_counts(noted), start_s)
    except (*DAMAGE, LookupError):
        return Kept()


def read_boot() -> str:
    """Return the id of this boot of the machine."""
    return (read_text(_BOOT_ID) or "").strip()


def _describe(pilot: Pilot) -> dict[str, Any]:
    plan, reading = pilot.plan, pilot.reading
    if plan is None or reading is None:
        return {}
    kept = {
        "now_s": reading.now_s,
        "slots": [
            (slot.name, slot.state.value, slot.since_s) for slot in pilot.slots if slot.state is not State.ABSENT
        ],
        "served": sorted(pilot.served),
        "start_s": pilot.start_s,
    }
    states = {slot.name: slot.state.value for slot in pilot.slots if slot.state is not State.ABSENT}
    return {
        "min": pilot.rules.min,
        "max": pilot.rules.max,
        "capacity": pilot.rules.capacity,
        "demand": reading.demand,
        "fixed": pilot.fixed,
        "wanted": plan.wanted,
        "have": plan.have,
        "reason": plan.reason,
        "floor": pilot.rules.find_floor(reading.week_min),
        "mean": round(plan.mean, 2),
        "counts": pilot.counts,
        "blind": reading.blind,
        "slots": states,
        "kept": kept,
    }
