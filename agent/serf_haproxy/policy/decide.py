"""Evidence -> the servers that HAProxy should have: pure.

Node files say what handlers heard, the roster says what Serf's agent knows. The roster corrects the node files,
and the servers follow from the node files alone, so that a directory listing shows all there is to know.
"""

import contextlib
import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.policy.address import Here, find_taken
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.damping import Flap, damp
from serf_haproxy.policy.guard import hold
from serf_haproxy.policy.server import Server, read_address
from serf_haproxy.serf.events import ALIVE, FAILED, Member
from serf_haproxy.serf.nodes import NodeFile

_LOOK_S = 2.0  # HAProxy tells nobody when the last server beside those that are kept out goes down
_CLOCK_S = 5.0  # the coarse clock of the files runs a little behind


class Gone(NamedTuple):
    """A server that was, and since when it is not any more, nanoseconds since the epoch."""

    server: Server
    at_ns: int


class Context(NamedTuple):
    """What else counts beside the node files.

    Attributes:
        connection_counts: Connections that HAProxy has to a server, by name.
        known: Servers of the configuration that was published last, by name.
        flaps: What is remembered of nodes that came and went, by name.
        unfit: What is remembered of servers whose members are there and can be none any more (`Pool.unfit`).
        serving: Names of servers that HAProxy has and does not see down.
        down: Names of the servers that HAProxy's health checks take for down; None when it was not asked.
    """

    connection_counts: Mapping[str, int] = {}
    known: Mapping[str, Server] = {}
    flaps: Mapping[str, Flap] = {}
    unfit: Mapping[str, Gone] = {}
    serving: frozenset[str] = frozenset()
    down: frozenset[str] | None = None

    def has_clients(self, name: str, is_sticky: bool) -> bool:
        """Tell whether a server has something to finish; sticky clients may come back to it at any time."""
        return bool(self.connection_counts.get(name)) or (is_sticky and name in self.serving)


class Pool(NamedTuple):
    """What node files come to.

    Attributes:
        servers: Sorted by name.
        quarantined: Members that are alive and cannot become servers, admitted or held: the reason by name.
        draining: Names of servers that go once their last client has.
        held: Servers that would have gone, were they not so many; for how many seconds yet, by name.
        damped: Nodes that are kept out because they flap; for how many seconds yet, by name.
        changes_in_s: After how many seconds, without any news, the servers may be others; None for never.
        unfit: Servers that were published and whose members are there, have not left and can be none any more, by name:
            neither node file nor configuration tells for long what they were and since when, so it is to be remembered.
        unknown: Names of other members that can be no servers: were they ever published?
    """

    servers: tuple[Server, ...]
    quarantined: dict[str, str]
    draining: tuple[str, ...]
    held: dict[str, float]
    damped: dict[str, float]
    changes_in_s: float | None
    unfit: dict[str, Gone]
    unknown: frozenset[str]


class _Sorted(NamedTuple):
    """Members by what they are, by name: servers, or the reason why one that has not left can be none."""

    alive: dict[str, Server]
    leaving: dict[str, Gone]
    failed: dict[str, Gone]
    unfit: dict[str, str]


def build(evidence: Mapping[str, NodeFile], rules: Rules, now_ns: int = 0, context: Context | None = None) -> Pool:
    """Return the servers for a set of node files; a node that cannot become one is quarantined alone.

    Args:
        evidence: Node files by name.
        rules: Which members become servers.
        now_ns: The time, nanoseconds since the epoch.
        context: What else counts.
    """
    context = context or Context()
    rules = rules._replace(here=_locate(evidence, rules))
    members = _sort_out(evidence, rules)
    unfit = _remember(evidence, members.unfit, context, now_ns)
    damped = damp(context.flaps, members.alive, rules.flaps, now_ns / 1e9)
    if context.down and context.down >= members.alive.keys() - damped.keys():
        damped = {}  # of the others none works
    draining_s = {
        name: left_s
        for name, (_, at_ns) in members.leaving.items()
        if context.has_clients(name, rules.is_sticky)
        and (left_s := _time_left_s(at_ns, rules.drain_timeout_s, now_ns)) > 0
    }
    lost = _find_lost(evidence, rules, members, unfit)
    grace_s = {
        name: left_s
        for name in members.failed.keys() & lost.keys()
        if (left_s := _time_left_s(lost[name].at_ns, rules.failed_grace_s, now_ns)) > 0
    }
    lost_ns = {name: gone.at_ns for name, gone in lost.items()}
    leaves_ns = [gone.at_ns for gone in members.leaving.values()]
    held = hold(lost_ns, len(members.alive), leaves_ns, rules.guard, now_ns)
    held = {name: left_s for name, left_s in held.items() if name not in grace_s}
    servers = {name: server for name, server in members.alive.items() if name not in damped}
    servers |= {name: members.leaving[name].server._replace(weight=0) for name in draining_s}
    servers |= {name: lost[name].server for name in grace_s | held}
    times_s = [*draining_s.values(), *grace_s.values(), *held.values(), *damped.values()]
    if damped and context.down is not None:
        times_s.append(_LOOK_S)
    return Pool(
        tuple(servers[name] for name in sorted(servers)),
        {
            name: reason
            for name, reason in members.unfit.items()
            if evidence[name].status == ALIVE and (name in held or rules.admit(evidence[name].member))
        },
        tuple(sorted(draining_s)),
        dict(sorted(held.items())),
        damped,
        min(times_s, default=None),
        unfit,
        frozenset(members.unfit.keys() - unfit.keys()),
    )


def _locate(evidence: Mapping[str, NodeFile], rules: Rules) -> Here:
    """Return what the node files tell of the balancers' own places."""
    addresses = {}
    for name, heard in evidence.items():
        if heard.status == ALIVE and rules.is_balancer(heard.member):
            with contextlib.suppress(ValueError):
                addresses[name] = read_address(heard.member.address)
    own = addresses.get(rules.self_name, "")
    return Here(own, find_taken(rules.binds, own, addresses.values()))


def _sort_out(evidence: Mapping[str, NodeFile], rules: Rules) -> _Sorted:
    members = _Sorted({}, {}, {}, {})
    before = _servers_under(rules)
    servers: dict[Member, Server] = {}
    for name in sorted(evidence):
        heard = evidence[name]
        if rules.is_balancer(heard.member):
            continue
        try:
            server = before.get(heard.member) or rules.read_server(heard.member)
        except ValueError as error:
            if heard.status in (ALIVE, FAILED):
                members.unfit[name] = str(error)
            continue
        servers[heard.member] = server
        if heard.status == ALIVE:
            members.alive[name] = server
        else:
            group = members.failed if heard.status == FAILED else members.leaving
            group[name] = Gone(server, heard.mtime_ns)
    before.clear()
    before.update(servers)
    return members


@functools.lru_cache(maxsize=1)
def _servers_under(rules: Rules) -> dict[Member, Server]:
    """Return what members came to the last time, if the rules were the same: most of them are what they were."""
    del rules  # they are the key
    return {}


def _remember(evidence: Mapping[str, NodeFile], names: Iterable[str], context: Context, now_ns: int) -> dict[str, Gone]:
    """Return what those were that can be servers no more, and since when: a node file tells that of a failure alone."""
    unfit = {}
    for name in names:
        if name in context.unfit:
            unfit[name] = context.unfit[name]
        elif name in context.known:
            unfit[name] = Gone(
                context.known[name], now_ns if evidence[name].status == ALIVE else evidence[name].mtime_ns
            )
    return unfit


def _find_lost(
    evidence: Mapping[str, NodeFile], rules: Rules, members: _Sorted, unfit: Mapping[str, Gone]
) -> dict[str, Gone]:
    """Return the servers that have gone without having left, and since when.

    One is really gone when another member has its address and port. One that can be no server any more is still what it
    was before, as far as HAProxy knows.
    """
    lost = members.failed | {name: gone for name, gone in unfit.items() if rules.allows(gone.server)}
    if not lost:
        return {}
    takers: dict[str, set[str]] = {}
    for name, server in members.alive.items():
        takers.setdefault(server.endpoint, set()).add(name)
    for name, heard in evidence.items():
        if heard.status == ALIVE and not rules.admit(heard.member) and "port" in heard.member.tag_values():
            try:
                takers.setdefault(rules.read_claim(heard.member).endpoint, set()).add(name)
            except ValueError:
                continue
    return {name: gone for name, gone in lost.items() if takers.get(gone.server.endpoint, {name}) <= {name}}


def _time_left_s(at_ns: int, span_s: float, now_ns: int) -> float:
    """Return what is left of a span; a clock that was set back ends it at once."""
    age_s = (now_ns - at_ns) / 1e9
    return span_s - max(0.0, age_s) if age_s >= -_CLOCK_S else 0.0
