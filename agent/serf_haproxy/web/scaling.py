"""Scaling for the page: each service's demand, capacity and servers over the last minutes, and its last decisions."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from serf_haproxy.control.history import SCALE, Happening
from serf_haproxy.web.reading import Reading

_POINT_COUNT = 300  # at two seconds each: ten minutes
_DECISION_COUNT = 20

Point = tuple[float, int, float, int, int]
Decision = tuple[float, str, str, str]


class Scales:
    """The services that scale."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, Any]] = {}
        self._points: dict[str, deque[Point]] = {}
        self._decisions: dict[str, deque[Decision]] = {}

    def update(self, reading: Reading, happenings: Iterable[Happening]) -> None:
        """Take a reading, and what has been added to the history since the one before."""
        scaled = reading.report.scaled
        for told in (happening for happening in happenings if happening.kind == SCALE):
            decisions = self._decisions.setdefault(told.service, deque(maxlen=_DECISION_COUNT))
            decisions.append((told.at_s, told.node, told.what, told.why))
        self._services = {name: one.to_json(reading.at_s) for name, one in scaled.items()}
        points, self._points = self._points, {}
        for name, one in scaled.items():
            kept = self._points[name] = points.get(name) or deque(maxlen=_POINT_COUNT)
            serving = one.count_slots()["serving"]
            if not kept or kept[-1][0] != one.at_s:
                kept.append((one.at_s, one.demand, round(serving * one.capacity, 1), serving, one.wanted))
        known = reading.report.snapshot.services.names
        self._decisions = {name: told for name, told in self._decisions.items() if name in known}

    def list_all(self, *, is_whole: bool) -> dict[str, Any]:
        """Return the services by name, each with what the autoscaler says, its last decisions, and its points.

        Points are all or the last one: time, demand, the demand that the servers in service are meant for, servers in
        service, servers wanted. Decisions: time, slot, what, why.
        """
        return {
            name: {
                **one,
                "points": list(self._points[name]) if is_whole else [self._points[name][-1]],
                "decisions": list(self._decisions.get(name, ())),
            }
            for name, one in self._services.items()
        }
