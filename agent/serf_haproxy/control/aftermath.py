"""What is told of a pass besides its log: lines of the history."""

import logging
from collections.abc import Iterator, Sequence

from serf_haproxy.control.edges import Edges
from serf_haproxy.control.history import DRIFT, NODE, ORDER, PASS, Happening
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.decision import UNKNOWN, Decision, Entry, tell_change
from serf_haproxy.policy.orders import describe, explain, name_subject, tell_end
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.services import Key, find_service
from serf_haproxy.system.moments import time_ms

log = logging.getLogger("serf-haproxy")

_CHANGED = (Verdict.APPLIED, Verdict.RELOADED)


class Aftermath:
    """Tells what is new after each pass, and so keeps what it has told."""

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] | None = None
        self._told: tuple[str, str] = ("", "")  # verdict and reason of the pass before
        self._taken_ms = time_ms() - 1  # this very millisecond is news

    def tell(
        self, edges: Edges, snapshot: Snapshot, decision: Decision, outcome: Outcome, changed: Sequence[Key]
    ) -> tuple[str, ...]:
        """Add to the history; return complaints.

        Args:
            edges: Where the history is, and the orders.
            snapshot: What was read.
            decision: What was decided.
            outcome: What the pass came to.
            changed: About which nodes, and in which services, another entry was made than before.
        """
        before, self._entries = self._entries, decision.entries
        happenings = [*self._list_orders(edges, snapshot), *self._list_nodes(snapshot, decision, before, changed)]
        happenings += self._list_acts(snapshot, outcome)
        try:
            edges.history.add(happenings)
        except SystemFault as error:
            return (str(error),)
        return ()

    def _list_orders(self, edges: Edges, snapshot: Snapshot) -> Iterator[Happening]:
        table = edges.orders.read()
        fresh = [one for one in table.values() if one.taken_ms > self._taken_ms]
        for one in sorted(fresh, key=lambda each: each.taken_ms):
            order = one.order
            what, why = describe(order), explain(order) if order.mode else order.reason or tell_end(order)
            told = _make(snapshot, ORDER, (order.service, order.node), what, why)._replace(by=order.author)
            log.info("%s", f"ORDER {what} {name_subject(order)}: {why}".replace(" :", ":"))
            yield told
        self._taken_ms = max([self._taken_ms, *(one.taken_ms for one in fresh)])

    def _list_nodes(
        self, snapshot: Snapshot, decision: Decision, before: dict[Key, Entry] | None, changed: Sequence[Key]
    ) -> Iterator[Happening]:
        entries = decision.entries
        for key in changed:
            entry, earlier = entries[key], None if before is None else before.get(key)
            was = _name_known(snapshot, key, entry) if before is None else earlier.outline if earlier else UNKNOWN
            if told := tell_change(was, entry):
                by = entry.order.author if entry.order else ""
                yield _make(snapshot, NODE, key, *told)._replace(by=by)
        if before is not None and before.keys() != entries.keys():
            for key in before.keys() - entries.keys():
                if told := tell_change(before[key].outline, None):
                    yield _make(snapshot, NODE, key, *told)

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


def _make(snapshot: Snapshot, kind: str, key: Key, what: str, why: str) -> Happening:
    return Happening(snapshot.at_ns / 1e9, snapshot.rules.self_name, kind, *key, what, why)


def _name_known(snapshot: Snapshot, key: Key, entry: Entry) -> str:
    """Return the state before the first pass of this process, as far as the state directory tells."""
    known = snapshot.known.get(key)
    if known is not None and known.is_served:
        return entry.outline if entry.server == known.server else "served"
    return UNKNOWN if entry.server is not None else entry.outline
