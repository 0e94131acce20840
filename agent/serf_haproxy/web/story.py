"""What has happened lately: the daemon's history, what Serf said, and the way of each event to HAProxy."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from serf_haproxy.control.history import NODE, Happening
from serf_haproxy.services import Key, format_key
from serf_haproxy.web.news import News
from serf_haproxy.web.reading import Reading
from serf_haproxy.web.ways import Way, Ways

EVENT = "event"

_KEPT_COUNT = 300


class Line(NamedTuple):
    """Something that has happened.

    Attributes:
        number: Its number; a line that is told again replaces the one with its number.
        at_s: When, seconds since the epoch.
        kind: EVENT, or a kind of the history.
        subject: The node, with its service where it is about one; "" for neither.
        text: What happened, and why.
        by: The operator who wanted it, "" for none.
        way: The way of the event that a decision follows from; None where it follows from none, or was not followed.
    """

    number: int
    at_s: float
    kind: str
    subject: str
    text: str
    by: str = ""
    way: Way | None = None


class Found(NamedTuple):
    """What is new in a reading.

    Attributes:
        statuses: For each event what Serf said; several events of a node between two readings are one.
        latencies_s: For each event that HAProxy has run since, how long that took.
        lines: What is new, and what has come further on its way.
    """

    statuses: list[str]
    latencies_s: list[float]
    lines: list[Line]


class Story:
    """The last lines, in the order in which they were told.

    Attributes:
        lines: The lines.
    """

    def __init__(self) -> None:
        self.lines: deque[Line] = deque(maxlen=_KEPT_COUNT)
        self._count = 0
        self._ways = Ways()
        self._applied: dict[str, float] = {}  # when each node's last event that was timed was heard
        self._mtimes_ns: dict[str, int] | None = None

    def hear(self, news: News) -> None:
        """Note a pass."""
        self._ways.hear(news)

    def compare(self, reading: Reading, happenings: Iterable[Happening]) -> Found:
        """Take a reading; return what is new.

        Args:
            reading: The reading.
            happenings: What has been added to the history since the one before.
        """
        listed = list(happenings)[-_KEPT_COUNT:]
        events = list(self._list_events(reading))
        told = [(at_s, EVENT, name, f"Serf: {status}", "") for name, at_s, status in events]
        told += [(one.at_s, one.kind, _name(one), f"{one.what}: {one.why}", one.by) for one in listed]
        lines = [Line(self._count + number, *one) for number, one in enumerate(sorted(told))]
        self._count += len(lines)
        self.lines.extend(lines)
        self._mtimes_ns = {name: file.mtime_ns for name, file in reading.report.snapshot.files.items()}
        ways = self._ways.follow(reading, listed)
        changed = {line.number: line for line in (*lines, *self._note(ways))}
        return Found([status for _, _, status in events], list(self._time(ways)), list(changed.values()))

    def _list_events(self, reading: Reading) -> Iterator[tuple[str, float, str]]:
        """Yield name, time and status of each node with a node file that Serf's events have changed."""
        if self._mtimes_ns is None:
            return
        from_roster = reading.report.record.from_roster
        for name, file in reading.report.snapshot.files.items():
            if file.mtime_ns not in (self._mtimes_ns.get(name), from_roster.get(name)):
                yield name, file.mtime_ns / 1e9, file.status

    def _note(self, ways: dict[Key, Way]) -> list[Line]:
        """Write ways down at the decisions that they belong to; return these."""
        by_decision = {(format_key(key), way.decided_s): way for key, way in ways.items()}
        noted = []
        for index, line in enumerate(self.lines):
            way = by_decision.get((line.subject, line.at_s)) if line.kind == NODE else None
            if way:
                self.lines[index] = line._replace(way=way)
                noted.append(self.lines[index])
        return noted

    def _time(self, ways: dict[Key, Way]) -> Iterator[float]:
        """Yield how long each event took to be applied, once for each: one event may concern several services."""
        for (_, name), way in ways.items():
            if way.applied_s is not None and self._applied.get(name) != way.heard_s:
                self._applied[name] = way.heard_s
                yield way.applied_s - way.heard_s
        self._applied = {name: at_s for name, at_s in self._applied.items() if name in (self._mtimes_ns or {})}


def _name(one: Happening) -> str:
    return format_key((one.service, one.node)) if one.service and one.node else one.node or one.service
