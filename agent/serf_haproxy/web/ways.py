"""The ways of events: heard from Serf, decided, applied by HAProxy, the first request. When each step happened."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from serf_haproxy.control.history import NODE, Happening
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.policy.decision import State
from serf_haproxy.services import Key
from serf_haproxy.web.news import News
from serf_haproxy.web.reading import Reading

_PASS_COUNT = 300
_WAY_COUNT = 1024  # at a time; further ones are not followed
_PATIENCE_S = 600.0  # a way that has not come further for so long has ended


class Way(NamedTuple):
    """When the steps of an event's way happened, seconds since the epoch; None for what has not happened yet.

    Attributes:
        heard_s: A handler, or the daemon from Serf's roster, wrote the node file.
        decided_s: The daemon decided what follows from it.
        applied_s: The pass ended after which HAProxy ran it.
        unasked_s: HAProxy had not sent the server a request by then.
        asked_s: It had sent one by then: the first one was between the two, a look at HAProxy's statistics apart.
    """

    heard_s: float
    decided_s: float
    applied_s: float | None = None
    unasked_s: float | None = None
    asked_s: float | None = None


class _Open(NamedTuple):
    """A way that has not ended, and how many requests the server had got when it began; None: not known yet."""

    way: Way
    total_count: int | None


class Ways:
    """Follows the ways that began after the first reading."""

    def __init__(self) -> None:
        self._passes: deque[News] = deque(maxlen=_PASS_COUNT)
        self._open: dict[Key, _Open] = {}
        self._decided_s: dict[Key, float] = {}
        self._began_s = self._looked_s = 0.0
        self._served: frozenset[Key] = frozenset()

    def hear(self, news: News) -> None:
        """Note a pass."""
        if not news.is_repeated:
            self._passes.append(news)

    def follow(self, reading: Reading, lines: Iterable[Happening]) -> dict[Key, Way]:
        """Return the ways that have begun or come further since the reading before.

        Args:
            reading: The reading.
            lines: The lines of the history since the reading before.
        """
        if not self._began_s:
            self._began_s = reading.report.at_s
        changed = {key: self._open[key].way for key in self._begin(reading, lines)}
        for key, one in list(self._open.items()):
            after = self._look(key, one, reading)
            if after is None:
                del self._open[key]
                continue
            if after.way != one.way:
                changed[key] = after.way
            self._open[key] = after
            if after.way.asked_s is not None:
                del self._open[key]
        self._served, self._looked_s = frozenset(reading.report.servers or ()), reading.report.at_s
        return changed

    def _begin(self, reading: Reading, lines: Iterable[Happening]) -> set[Key]:
        """Begin a way for each decision that follows from a node file written since the one before about the node."""
        report = reading.report
        begun = set()
        self._decided_s = {key: at_s for key, at_s in self._decided_s.items() if key in report.decision.entries}
        for line in lines:
            key, file = (line.service, line.node), report.snapshot.files.get(line.node)
            before_s = max(self._began_s, self._decided_s.get(key, 0.0))
            if line.kind != NODE:
                continue
            self._decided_s[key] = line.at_s
            if file and before_s < file.mtime_ns / 1e9 <= line.at_s and len(self._open) < _WAY_COUNT:
                self._open[key] = _Open(Way(file.mtime_ns / 1e9, line.at_s), None if key in self._served else 0)
                begun.add(key)
        return begun

    def _look(self, key: Key, one: _Open, reading: Reading) -> _Open | None:
        """Return how far a way has come; None where it comes no further."""
        way, report = one.way, reading.report
        entry, status = report.decision.entries.get(key), (report.servers or {}).get(key)
        has_none = entry is not None and entry.server is None and key not in self._served  # nothing changes at HAProxy
        if has_none or reading.at_s - (way.applied_s or way.decided_s) > _PATIENCE_S:
            return None
        if way.applied_s is None:
            ended = next((news for news in self._passes if news.ended_s >= way.decided_s and news.is_in_force), None)
            if ended is None:
                return one
            if ended.verdict == Verdict.UNCHANGED:  # HAProxy ran the same before
                return None
            way = way._replace(applied_s=ended.ended_s)
        if entry is None or entry.state is not State.SERVING:
            return one._replace(way=way) if way != one.way else None
        if status is None or report.at_s < (way.applied_s or 0.0):
            return one._replace(way=way)
        # A server that was there before has had requests; a new worker counts from zero.
        count = status.total_count
        before_count = count if one.total_count is None else one.total_count if one.total_count <= count else 0
        if count > before_count:
            way = way._replace(unasked_s=max(way.applied_s or 0.0, self._looked_s), asked_s=reading.at_s)
        return _Open(way, before_count)
