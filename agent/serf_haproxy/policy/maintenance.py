"""Obeying orders about nodes: to drain one, or to take it out of service. Pure.

A drained server keeps the clients that it has, and gets no others: weight 0, as by its own tag `drain`. The last resort
still counts it. A stopped one is out at once, even if no other server is up: an operator has said so, not the gossip.
It is no loss for which other servers are held.
"""

from collections.abc import Mapping

from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.policy.judgement import Judgement
from serf_haproxy.policy.orders import STOP, Order, explain
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.services import Key

_MS = 1_000_000

Judged = Mapping[str, Judgement]


def obey(snapshot: Snapshot, judged: Judged) -> tuple[Snapshot, Judged, dict[Key, Entry]]:
    """Return the part of a service and its judgements as orders leave them, and the entries of stopped nodes.

    Args:
        snapshot: The part of one service.
        judged: What each member alone comes to, by name.
    """
    orders = {name: order for name in snapshot.orders.maint if (order := snapshot.orders.find(_key(snapshot, name)))}
    if not orders:
        return snapshot, judged, {}
    stopped = {
        name: order for name, order in orders.items() if order.mode == STOP and _is_concerned(snapshot, judged, name)
    }
    drained = {
        name: _drain(judgement, orders[name]) if name in orders and orders[name].mode != STOP else judgement
        for name, judgement in judged.items()
        if name not in stopped
    }
    keys = {_key(snapshot, name) for name in stopped}
    part = snapshot._replace(
        known={key: known for key, known in snapshot.known.items() if key not in keys},
        unfit={key: gone for key, gone in snapshot.unfit.items() if key not in keys},
    )
    return part, drained, {_key(snapshot, name): _make_entry(State.STOPPED, order) for name, order in stopped.items()}


def _key(snapshot: Snapshot, name: str) -> Key:
    return snapshot.rules.service, name


def _is_concerned(snapshot: Snapshot, judged: Judged, name: str) -> bool:
    """Return whether a node is in the service, or was: an order may be about a node that has not come yet."""
    judgement = judged.get(name)
    is_candidate = judgement is not None and judgement.entry.state is not State.IGNORED
    return is_candidate or _key(snapshot, name) in snapshot.known


def _drain(judgement: Judgement, order: Order) -> Judgement:
    if judgement.server is None:
        return judgement
    server = judgement.server._replace(weight=0)
    return judgement._replace(server=server, entry=_make_entry(State.DRAINING, order)._replace(server=server))


def _make_entry(state: State, order: Order) -> Entry:
    cause = Cause.DRAIN_ORDER if state is State.DRAINING else Cause.STOP_ORDER
    times_ns = order.at_ms * _MS, order.until_ms * _MS or None
    return Entry(state, explain(order), None, *times_ns, cause=cause, order=order)
