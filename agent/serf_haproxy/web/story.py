"""What has happened lately, found by comparing each reading with the one before: events, decisions, passes."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from serf_haproxy.control.outcome import Verdict
from serf_haproxy.policy.decision import Entry
from serf_haproxy.services import Key, format_key
from serf_haproxy.web.news import News
from serf_haproxy.web.reading import Reading

EVENT, DECISION, PASS = "event", "decision", "pass"

_KEPT_COUNT = 300
_CHANGING = (Verdict.APPLIED, Verdict.RELOADED)
_FORGET_S = 120.0  # an event that no pass has changed anything for


class Happening(NamedTuple):
    """Something that has happened.

    Attributes:
        at_s: When, seconds since the epoch.
        kind: EVENT, DECISION or PASS.
        subject: The node, or the node in its service; "" for a pass.
        text: What, in words.
        took_s: For an event how long it took until HAProxy ran what follows from it, for a pass how long it took;
            None where that is not known.
    """

    at_s: float
    kind: str
    subject: str
    text: str
    took_s: float | None = None


class Found(NamedTuple):
    """What is new in a reading.

    Attributes:
        statuses: For each event what Serf said; several events of a node between two readings are one.
        latencies_s: For each event that a pass has applied since, how long that took.
        happenings: What is new, and what is now known to have taken so long.
    """

    statuses: list[str]
    latencies_s: list[float]
    happenings: list[Happening]


class Story:
    """What has happened since this process started, the newest last."""

    def __init__(self) -> None:
        self.happenings: deque[Happening] = deque(maxlen=_KEPT_COUNT)
        self._passes: deque[News] = deque(maxlen=_KEPT_COUNT)
        self._waiting: dict[str, float] = {}  # nodes with an event that no pass has applied yet, and when it came
        self._mtimes_ns: dict[str, int] | None = None
        self._entries: dict[Key, Entry] = {}
        self._passed_s = 0.0

    def hear(self, news: News) -> None:
        """Note a pass."""
        if not news.is_repeated:
            self._passes.append(news)

    def compare(self, reading: Reading) -> Found:
        """Compare a reading with the one before; return what is new."""
        before, entries = self._entries, reading.report.decision.entries
        changed = [key for key, entry in entries.items() if not _is_same(before.get(key), entry)]
        changed += before.keys() - entries.keys()
        statuses, happenings = [], []
        for name, at_s, status in self._list_events(reading):
            statuses.append(status)
            happenings.append(Happening(at_s, EVENT, name, f"Serf: {status}"))
            if any(key[1] == name for key in changed):
                self._waiting[name] = at_s
        if self._mtimes_ns is not None:
            happenings += [_describe(key, before.get(key), entries.get(key), reading.at_s) for key in changed]
        happenings += self._list_passes(reading)
        happenings.sort(key=lambda one: one[:4])
        self.happenings.extend(happenings)
        self._mtimes_ns = {name: file.mtime_ns for name, file in reading.report.snapshot.files.items()}
        self._entries = dict(entries)
        timed = self._settle(reading.at_s)
        told = {one[:4]: one for one in (*happenings, *timed)}
        return Found(statuses, [one.took_s for one in timed if one.took_s is not None], list(told.values()))

    def _list_events(self, reading: Reading) -> Iterator[tuple[str, float, str]]:
        """Yield name, time and status of each node with a node file that Serf's events have changed."""
        if self._mtimes_ns is None:
            return
        from_roster = reading.report.record.from_roster
        for name, file in reading.report.snapshot.files.items():
            if file.mtime_ns not in (self._mtimes_ns.get(name), from_roster.get(name)):
                yield name, file.mtime_ns / 1e9, file.status

    def _list_passes(self, reading: Reading) -> Iterator[Happening]:
        """Yield the last pass, if it is new and has changed or refused something."""
        record = reading.report.record
        if record.at_s != self._passed_s and record.verdict not in ("", Verdict.UNCHANGED):
            yield Happening(record.at_s, PASS, "", f"{record.verdict} {record.reason}", record.took_s)
        self._passed_s = record.at_s

    def _settle(self, now_s: float) -> list[Happening]:
        """Return the events that a pass has applied by now, with their times; forget those that wait for too long."""
        timed = []
        for name, at_s in list(self._waiting.items()):
            next_pass = next((one for one in self._passes if one.began_s >= at_s), None)
            if next_pass is not None:
                ended_s = next_pass.ended_s if next_pass.verdict in _CHANGING else self._find_end(at_s)
                timed += self._time(name, at_s, ended_s - at_s) if ended_s else []
            if next_pass is not None or now_s - at_s > _FORGET_S:
                del self._waiting[name]
        return timed

    def _find_end(self, at_s: float) -> float | None:
        """Return when the pass ended that was under way at a time, if it changed something; None for no such pass."""
        passes = (one for one in self._passes if one.began_s < at_s <= one.ended_s and one.verdict in _CHANGING)
        return next((one.ended_s for one in passes), None)

    def _time(self, name: str, at_s: float, took_s: float) -> list[Happening]:
        """Write down how long an event took, and return it."""
        timed = []
        for index, one in enumerate(self.happenings):
            if (one.kind, one.subject, one.at_s) == (EVENT, name, at_s):
                self.happenings[index] = one._replace(took_s=took_s)
                timed.append(self.happenings[index])
        return timed


def _is_same(before: Entry | None, after: Entry) -> bool:
    return before is not None and (before.state, before.server) == (after.state, after.server)


def _describe(key: Key, before: Entry | None, after: Entry | None, at_s: float) -> Happening:
    if after is None:
        return Happening(at_s, DECISION, format_key(key), "forgotten")
    step = f"{before.state} -> {after.state}" if before and before.state is not after.state else str(after.state)
    where = f" at {after.server.endpoint}" if after.server else ""
    # What follows from time alone, such as the end of a grace, has the same beginning as the state before.
    is_later = after.since_ns is None or (before is not None and before.since_ns == after.since_ns)
    since_s = at_s if is_later else min(at_s, (after.since_ns or 0) / 1e9)
    return Happening(since_s, DECISION, format_key(key), f"{step}{where}: {after.reason}")
