"""What the autoscaler says of each service, from the notes that it leaves. Reading them trusts nothing in them."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from serf_haproxy.control.record import DAMAGE, parse_finite
from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import NAME
from serf_haproxy.system.files import read_text

STATES = ("serving", "starting", "draining", "stopping", "failed")
DECISIONS = ("start", "drain", "return", "stop")
RESULTS = ("start done", "start failed", "stop done", "stop failed")
SILENT_S = 15.0  # notes are made each second; older ones say that the autoscaler does not run, or cannot look

_BYTES = 2**22
_SLOTS, _TEXT = 10_000, 300


class Scaled(NamedTuple):
    """One service, as the autoscaler saw it last.

    Attributes:
        at_s: When, seconds since the epoch.
        is_deciding: Whether this balancer decides.
        why: Which balancer decides, or why no server is taken away; "" for neither.
        min: The fewest servers.
        max: The most servers.
        floor: The fewest servers now: `min`, or more in a peak.
        demand: Requests in flight or queued, at all balancers, without those that servers carry which are no slots.
        mean: The mean demand of the last minute.
        capacity: The demand that one server is meant for.
        fixed: Servers in service that are no slots.
        wanted: How many servers should be in service.
        have: How many are in service or start.
        reason: Why, in one line.
        blind: Why the demand is not known whole, so that no server is taken away; "" where it is known.
        slots: The state of each slot that is not empty, one of STATES.
        counts: How often what was decided, and what came of it: DECISIONS and RESULTS.
    """

    at_s: float
    is_deciding: bool
    why: str
    min: int
    max: int
    floor: int
    demand: int
    mean: float
    capacity: float
    fixed: int
    wanted: int
    have: int
    reason: str
    blind: str
    slots: Mapping[str, str]
    counts: Mapping[str, int]

    def count_slots(self) -> dict[str, int]:
        """Return the number of slots in each state."""
        states = list(self.slots.values())
        return {state: states.count(state) for state in STATES}

    def to_json(self, now_s: float) -> dict[str, Any]:
        """Return it for JSON, with its age and the number of slots in each state."""
        return {**self._asdict(), "age_s": max(0.0, now_s - self.at_s), "slot_counts": self.count_slots()}


def locate_notes(state_dir: str) -> str:
    """Return the path of the notes."""
    return os.path.join(state_dir, "autoscale.json")


def read_notes(path: str) -> dict[str, Any]:
    """Return the notes; nothing where there are none, or damaged ones."""
    try:
        notes = json.loads(read_text(path, _BYTES) or "{}")
        return notes if isinstance(notes, dict) else {}
    except (SystemFault, *DAMAGE):
        return {}


def read_scaled(state_dir: str) -> dict[str, Scaled]:
    """Return what is said of each service; one of which something else is said than there should be is left out."""
    notes = read_notes(locate_notes(state_dir))
    listed = notes.get("services")
    found = {}
    for name, told in listed.items() if isinstance(listed, dict) else ():
        try:
            if NAME.fullmatch(name):
                found[name] = _read(notes, told)
        except (*DAMAGE, LookupError):
            continue
    return found


def read_counts(told: Any) -> dict[str, int]:
    """Return how often something was decided, or came of it; nothing from damaged notes."""
    try:
        return {what: max(0, int(told["counts"].get(what, 0))) for what in (*DECISIONS, *RESULTS)}
    except (*DAMAGE, LookupError):
        return {}


def _read(notes: Mapping[str, Any], told: Mapping[str, Any]) -> Scaled:
    slots = {
        printable(name, _TEXT): str(state)
        for name, state in list(told["slots"].items())[:_SLOTS]
        if str(state) in STATES
    }
    numbers = {name: max(0, int(told[name])) for name in ("min", "max", "floor", "demand", "fixed", "wanted", "have")}
    return Scaled(
        at_s=parse_finite(notes["at_s"]),
        is_deciding=notes["is_deciding"] is True,
        why=printable(str(notes["why"]), _TEXT),
        mean=parse_finite(told["mean"]),
        capacity=parse_finite(told["capacity"]),
        reason=printable(str(told["reason"]), _TEXT),
        blind=printable(str(told["blind"]), _TEXT),
        slots=slots,
        counts=read_counts(told),
        **numbers,
    )
