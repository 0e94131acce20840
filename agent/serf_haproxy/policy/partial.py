"""What a few members come to by themselves, so that HAProxy has it before the whole cluster is decided. Pure.

A decision about one member among thousands takes as long as one about all of them, because some rules look at all:
losses that come together, the last servers that are up, shares of versions. Where none of these rules can apply, the
member alone decides, and what it comes to is what `decide` comes to. Anywhere else nothing is decided here.
"""

import bisect
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.claim import list_offers
from serf_haproxy.policy.decision import Decision, State
from serf_haproxy.policy.judgement import Memo, judge_member
from serf_haproxy.policy.pace import find_first_ms
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.events import ALIVE, FAILED
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import Key

# States that follow from more than the member itself. It may leave them by itself, but not enter them.
_SHARED = frozenset([State.GRACE, State.HELD, State.LAST, State.DAMPED, State.STOPPED])


class Basis(NamedTuple):
    """The last decision about the whole.

    Attributes:
        snapshot: What was read for it.
        decision: What was decided.
        rules: The rules of each service as they were applied, by its name.
        touched: Servers that were changed since, on the word of some members.
    """

    snapshot: Snapshot
    decision: Decision
    rules: Mapping[str, Rules]
    touched: set[Key]


def make_basis(snapshot: Snapshot, decision: Decision, memo: Memo) -> Basis:
    """Return the basis that a decision about the whole is; the memo is that of this decision."""
    names = [rules.service for rules in (snapshot.rules, *snapshot.further_rules)]
    # A basis waits for the next pass, and what no member needs takes as much memory as all of the rest.
    snapshot = snapshot._replace(running=None, roster=None, live=None, view=snapshot.view._replace(places={}))
    return Basis(snapshot, decision, {name: memo.judged[name][0] for name in names}, set())


class Undecided(Exception):
    """Other members count too: only the whole can be decided."""


def decide_some(files: Mapping[str, NodeFile], basis: Basis) -> tuple[Server, ...]:
    """Return the servers of a few members that should differ from those of the last decision, sorted.

    A member that leaves keeps its server, with weight 0: the whole decides when that has nothing left to finish.

    Args:
        files: The node files of these members.
        basis: The last decision about the whole.

    Raises:
        Undecided: The whole has to be decided.
    """
    if basis.snapshot.view.down is None:
        raise Undecided
    changed: list[Server] = []
    new: set[Key] = set()
    for name, file in files.items():
        for service in _list_services(name, file, basis):
            former = _find_former((service, name), basis.decision.servers)
            server = _decide_server((service, name), file, former, basis)
            if server is not None and server != former:
                changed.append(server)
                new |= {server.key} if former is None else set()
    keys = {server.key for server in changed}
    for service in {server.service for server in changed if server.weight == 0}:
        if not _has_others(service, keys, basis):
            raise Undecided
    first_ms = find_first_ms(basis.decision.checks, len(new), basis.snapshot.rules.check_rate)
    servers = [one._replace(down_interval_ms=first_ms) if one.key in new else one for one in changed]
    return tuple(sorted(servers, key=lambda server: server.key))


def _list_services(name: str, file: NodeFile, basis: Basis) -> Iterator[str]:
    """Yield the services that a member offers, and those in which it has been."""
    offered = list_offers(file.member) if basis.snapshot.rules.are_named else tuple(basis.rules)
    yield from (service for service in basis.rules if service in offered or (service, name) in basis.decision.entries)


def _find_former(key: Key, servers: Sequence[Server]) -> Server | None:
    """Return the server of a key among servers sorted by it."""
    index = bisect.bisect_left(servers, key, key=lambda server: server.key)
    return servers[index] if index < len(servers) and servers[index].key == key else None


def _decide_server(key: Key, file: NodeFile, former: Server | None, basis: Basis) -> Server | None:
    """Return the server of a member in a service; None for none."""
    decision, rules = basis.decision, basis.rules[key[0]]
    judgement = judge_member(file, rules)
    if judgement.is_balancer or file.status == FAILED or rules.split or _depends(key, basis):
        raise Undecided
    server, entry = judgement.server, decision.entries.get(key)
    if server is None or file.status != ALIVE:
        if former is None and key not in decision.known:
            return None
        if server is None or former is None:
            raise Undecided  # what becomes of a server whose member is unfit depends on how many are lost
        server = server._replace(weight=0)
    elif entry is not None and entry.server == server:
        return former
    if rules.measured_by and server.weight != 0:
        raise Undecided  # one more weight may change the scale of all
    if former is None:
        if key in (basis.snapshot.view.known or ()):
            raise Undecided  # it still runs, and nothing says in which state
        return server._replace(check_interval_s=decision.checks.interval_s)
    weighed = former._replace(weight=server.weight)
    if weighed != server._replace(check_interval_s=former.check_interval_s, down_interval_ms=former.down_interval_ms):
        raise Undecided  # a server with another address has to be made anew, which takes time
    return weighed


def _depends(key: Key, basis: Basis) -> bool:
    """Return whether a server depends on more than what its member says now."""
    snapshot, decision = basis.snapshot, basis.decision
    entry = decision.entries.get(key)
    is_remembered = key in decision.flaps or key in decision.unfit or key in snapshot.refused
    is_shared = entry is not None and entry.state in _SHARED
    return key in basis.touched or is_shared or is_remembered or snapshot.orders.find(key) is not None


def _has_others(service: str, keys: Collection[Key], basis: Basis) -> bool:
    """Return whether a service has a server that can serve, besides some."""
    servers = basis.decision.servers
    begin = bisect.bisect_left(servers, (service, ""), key=lambda server: server.key)
    for server in itertools.islice(servers, begin, None):
        if server.service != service:
            return False
        if server.key not in keys and server.key not in basis.touched and basis.snapshot.stands(server):
            return True
    return False
