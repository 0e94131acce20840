"""The rows of the page: what of them has changed since the last reading, and rates over time."""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from serf_haproxy.web.reading import Reading, count_up

_POINT_COUNT = 300  # at two seconds each: ten minutes
_SERVICE, _TOTAL, _RESPONSE_MS = 0, 8, 9  # places in a row of `reading.list_rows`

Point = tuple[float, float, float | None]


class Before(NamedTuple):
    """The numbers of the reading before.

    Attributes:
        at_s: When, seconds since the epoch.
        totals: Requests in all of each row.
    """

    at_s: float = 0.0
    totals: Mapping[str, int] = {}


class Sheet:
    """The rows of the last reading, with rates in place of totals, and each service's rates over the last minutes."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Any]] = {}
        self._services: dict[str, dict[str, Any]] = {}
        self._points: dict[str, deque[Point]] = {}
        self._before = Before()

    def update(self, reading: Reading) -> dict[str, Any]:
        """Take a reading; return the rows that have changed, and the names of those that are gone."""
        before, after = self._rows, reading.list_rows()
        totals = {name: row[_TOTAL] for name, row in after.items() if row[_TOTAL] is not None}
        span_s = reading.at_s - self._before.at_s
        for name, row in after.items():
            row[_TOTAL] = self._find_rate(name, row[_TOTAL], span_s)
        self._before, self._rows = Before(reading.at_s, totals), after
        self._update_services(reading)
        return {
            "rows": {name: row for name, row in after.items() if before.get(name) != row},
            "gone": sorted(before.keys() - after.keys()),
        }

    def list_all(self) -> dict[str, Any]:
        """Return all rows."""
        return {"rows": self._rows, "gone": []}

    def list_services(self, *, is_whole: bool) -> dict[str, Any]:
        """Return the services by name, each with all its points or with the last one: time, requests a second, ms."""
        return {
            name: service | {"points": list(self._points[name]) if is_whole else [self._points[name][-1]]}
            for name, service in self._services.items()
        }

    def _find_rate(self, name: str, total: int | None, span_s: float) -> float | None:
        """Return requests a second since the reading before; a new worker counts from zero."""
        earlier = self._before.totals.get(name)
        if total is None or earlier is None or span_s <= 0:
            return None
        return round((total - earlier if total >= earlier else total) / span_s, 1)

    def _update_services(self, reading: Reading) -> None:
        self._services = {
            name: {key: one[key] for key in ("mode", "routes", "bind", "balance", "node_counts", "server_count")}
            | {"up_count": count_up(reading, name)}
            for name, one in reading.document["services"].items()
        }
        rates: dict[str, float] = dict.fromkeys(self._services, 0.0)
        work_ms: dict[str, float] = dict.fromkeys(self._services, 0.0)
        for row in self._rows.values():
            if row[_TOTAL] and row[_SERVICE] in rates:
                rates[row[_SERVICE]] += row[_TOTAL]
                work_ms[row[_SERVICE]] += row[_TOTAL] * (row[_RESPONSE_MS] or 0)
        points, self._points = self._points, {}
        for name, rate in rates.items():
            self._points[name] = points.get(name) or deque(maxlen=_POINT_COUNT)
            mean_ms = round(work_ms[name] / rate, 1) if rate else None
            self._points[name].append((round(reading.at_s, 1), round(rate, 1), mean_ms))
