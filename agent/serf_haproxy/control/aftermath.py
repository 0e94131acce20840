"""What is told of a pass besides its log: lines of the history, and the answers to queries of Serf."""

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator

from serf_haproxy.control.edges import Edges
from serf_haproxy.control.history import DRIFT, NODE, ORDER, PASS, Happening
from serf_haproxy.control.outcome import ALONE, Outcome, Verdict
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.decision import Decision, Entry
from serf_haproxy.policy.orders import describe, explain, name_subject
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import Key, find_service
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import write_quickly

log = logging.getLogger("serf-haproxy")

_TEXT = 300  # characters
_RENEW_S = 5.0
_CHANGED = (Verdict.APPLIED, Verdict.RELOADED)


class Aftermath:
    """Tells what is new after each pass, and so keeps what it has told.

    Attributes:
        balancers: The name of this balancer's node, "" while it is not known, and those of others that are alive.
    """

    def __init__(self) -> None:
        self.balancers: tuple[str, tuple[str, ...]] = ("", ())
        self._entries: dict[Key, Entry] | None = None
        self._lines: dict[Key, str] = {}
        self._told: tuple[str, str] = ("", "")  # verdict and reason of the pass before
        self._taken_ms = time.time_ns() // 1_000_000
        self._answers: dict[str, str] = {}
        self._counted: tuple[object, object, str] = (None, None, "")
        self._seen: object = None
        self._renewed_s = 0.0

    def tell(
        self, settings: Settings, edges: Edges, snapshot: Snapshot, decision: Decision, outcome: Outcome
    ) -> tuple[str, ...]:
        """Add to the history, and write the answers; return complaints.

        Args:
            settings: The settings.
            edges: Where the history is, and the orders.
            snapshot: What was read.
            decision: What was decided.
            outcome: What the pass came to.
        """
        self._find_balancers(settings, snapshot)
        before = self._entries
        changed = self._find_changed(decision)
        happenings = [*self._list_orders(edges, snapshot), *self._list_nodes(snapshot, decision, before, changed)]
        happenings += self._list_acts(snapshot, outcome)
        complaints = []
        try:
            edges.history.add(happenings)
        except SystemFault as error:
            complaints.append(str(error))
        for key in changed:
            self._lines[key] = _describe(key, decision.entries[key])
        if len(self._lines) != len(decision.entries):
            self._lines = {key: line for key, line in self._lines.items() if key in decision.entries}
        self._entries = decision.entries
        complaints += self._write_answers(settings, snapshot, decision, outcome)
        return tuple(complaints)

    def tell_failure(self, settings: Settings, text: str) -> None:
        """Answer from now on that the last pass ended with an error."""
        for name in ("ready", "status") if self._answers else ():
            self._answers[name] = f"not ready: {printable(text, _TEXT)}\n"
            with contextlib.suppress(SystemFault):  # the answers become old, which says the same
                write_quickly(os.path.join(settings.answers_dir, name), self._answers[name])

    def renew(self, settings: Settings) -> None:
        """Show that the daemon runs: the handler takes answers for wrong whose file is old."""
        now_s = time.monotonic()
        if self._answers and now_s - self._renewed_s >= _RENEW_S:
            self._renewed_s = now_s
            try:
                os.utime(os.path.join(settings.answers_dir, "status"))
            except OSError:
                self._answers.clear()  # the next pass writes them again

    def _find_balancers(self, settings: Settings, snapshot: Snapshot) -> None:
        if (snapshot.files, snapshot.rules.self_name) == self._seen:
            return
        self._seen, self_name = (snapshot.files, snapshot.rules.self_name), snapshot.rules.self_name
        roles = settings.balancer_roles
        found = [
            name
            for name, file in snapshot.files.items()
            if file.member.role in roles and file.status == ALIVE and name != self_name
        ]
        self.balancers = self_name, tuple(found)

    def _find_changed(self, decision: Decision) -> list[Key]:
        """Return the nodes about which another entry was made than before."""
        before = self._entries or {}
        return [key for key, entry in decision.entries.items() if before.get(key) is not entry]

    def _list_orders(self, edges: Edges, snapshot: Snapshot) -> Iterator[Happening]:
        table = edges.orders.read()
        fresh = [one for one in table.values() if one.taken_ms > self._taken_ms]
        for one in sorted(fresh, key=lambda each: each.taken_ms):
            order = one.order
            what, why = describe(order), explain(order) if order.mode else order.reason or "it is undone"
            told = _make(snapshot, ORDER, (order.service, order.node), what, why)._replace(by=order.author)
            log.info("%s", f"ORDER {what} {name_subject(order)}: {why}".replace(" :", ":"))
            yield told
        self._taken_ms = max([self._taken_ms, *(one.taken_ms for one in fresh)])

    def _list_nodes(
        self, snapshot: Snapshot, decision: Decision, before: dict[Key, Entry] | None, changed: list[Key]
    ) -> Iterator[Happening]:
        entries = decision.entries
        for key in changed:
            entry, earlier = entries[key], None if before is None else before.get(key)
            was = _name_state(earlier) if before is not None else _name_known(snapshot, key, entry)
            if was != (now := _name_state(entry)):
                by = entry.order.author if entry.order else ""
                yield _make(snapshot, NODE, key, f"{was} -> {now}", entry.reason)._replace(by=by)
        if before is not None and before.keys() != entries.keys():
            for key in before.keys() - entries.keys():
                yield _make(snapshot, NODE, key, f"{_name_state(before[key])} -> forgotten", "Serf has no such node")

    def _list_acts(self, snapshot: Snapshot, outcome: Outcome) -> Iterator[Happening]:
        for drift in outcome.drifts:
            key = find_service(drift.key[0], snapshot.services.names), drift.key[1]
            yield _make(snapshot, DRIFT, key, f"it was {drift.what}", "changed at HAProxy's socket; it is put right")
        told = str(outcome.verdict), outcome.reason
        is_news = told != self._told and (
            outcome.verdict is not Verdict.UNCHANGED or self._told[0] not in ("", *_CHANGED)
        )
        if outcome.verdict in _CHANGED or is_news:
            yield _make(snapshot, PASS, ("", ""), *told)
        self._told = told

    def _write_answers(
        self, settings: Settings, snapshot: Snapshot, decision: Decision, outcome: Outcome
    ) -> tuple[str, ...]:
        name = snapshot.rules.self_name
        state = f"{name} {outcome.verdict}: {printable(outcome.reason, _TEXT)}"
        conditions = [f"{one.name.upper()} {printable(one.reason, _TEXT)}" for one in outcome.conditions]
        is_ready = outcome.is_in_force or outcome.verdict is Verdict.PAUSED
        fault = "HAProxy does not answer" if snapshot.running is None else "" if is_ready else outcome.reason
        fault = fault or ("it is alone" if outcome.has_condition(ALONE) else "")
        answers = {
            "nodes": "".join(self._lines.values()),
            "ready": f"not ready: {printable(fault, _TEXT)}\n" if fault else "ready\n",
            "status": "\n".join([state, *self._count(snapshot, decision), *conditions]) + "\n",
        }
        try:
            for file_name, text in answers.items():
                if self._answers.get(file_name) != text:
                    write_quickly(os.path.join(settings.answers_dir, file_name), text)
                    self._answers[file_name] = text
        except SystemFault as error:
            return (f"queries of Serf are not answered: {error}",)
        return ()

    def _count(self, snapshot: Snapshot, decision: Decision) -> list[str]:
        """Return a line for each service: its servers, those that are up, and the nodes that do not simply serve."""
        up = snapshot.view.up
        if self._counted[0] != decision.entries or self._counted[1] != up:
            counts = Counter(server.service for server in decision.servers)
            ups = Counter(server.service for server in decision.servers if up and server.key in up)
            lines = []
            for service in counts.keys() | {key[0] for key in decision.notable}:
                states = Counter(str(entry.state) for key, entry in decision.notable.items() if key[0] == service)
                others = "".join(f", {count} {state}" for state, count in sorted(states.items()))
                seen = f"{ups[service]} up" if up is not None else "HAProxy does not answer"
                lines.append(f"{service}: {counts[service]} servers, {seen}{others}")
            self._counted = decision.entries, up, "\n".join(sorted(lines))
        return [self._counted[2]] if self._counted[2] else []


def _make(snapshot: Snapshot, kind: str, key: Key, what: str, why: str) -> Happening:
    return Happening(snapshot.at_ns / 1e9, snapshot.rules.self_name, kind, *key, what, why)


def _name_state(entry: Entry | None) -> str:
    if entry is None:
        return "unknown"
    server = entry.server
    where = (
        "" if server is None else f" {server.endpoint}" + ("" if server.weight is None else f" weight {server.weight}")
    )
    return f"{entry.state}{where}"


def _name_known(snapshot: Snapshot, key: Key, entry: Entry) -> str:
    """Return the state before the first pass of this process, as far as the state directory tells."""
    known = snapshot.known.get(key)
    if known is not None and known.is_served:
        return _name_state(entry._replace(server=known.server)) if entry.server == known.server else "served"
    return "unknown" if entry.server is not None else _name_state(entry)


def _describe(key: Key, entry: Entry) -> str:
    return f"{key[1]}\t{key[0]} {_name_state(entry)}: {printable(entry.reason, _TEXT)}\n"
