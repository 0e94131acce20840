"""The decision: from a snapshot to the servers that HAProxy should have, and why. Pure."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.policy import damping
from serf_haproxy.policy.address import Here, locate, read_address
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.damping import Flap
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.guard import hold
from serf_haproxy.policy.judgement import Judgement, Memo, judge
from serf_haproxy.policy.pace import Sight, set_paces
from serf_haproxy.policy.server import Server, read_line
from serf_haproxy.policy.snapshot import Gone, Snapshot
from serf_haproxy.serf.events import ALIVE, FAILED, LEAVING, LEFT
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE, Key

_LOOK_S = 2.0  # HAProxy does not report that the last server beside the damped ones goes down, so look
_CLOCK_S = 5.0  # the coarse clock of the files runs a little behind


class _Sorted(NamedTuple):
    """The members of a service by their status, by name."""

    alive: dict[str, Server]
    leaving: dict[str, Gone]
    failed: dict[str, Gone]
    unfit: dict[str, Entry]


def decide(snapshot: Snapshot, memo: Memo | None = None) -> Decision:
    """Return what should be. A node that cannot become a server is quarantined alone.

    Args:
        snapshot: What was read.
        memo: The owner's memo of earlier decisions, which is brought up to date.
    """
    rules = snapshot.rules._replace(here=_locate(snapshot))
    flaps = _update_flaps(snapshot, rules)
    judged = judge(snapshot.files, rules, memo or Memo())
    decision = _decide_service(DEFAULT_SERVICE, snapshot._replace(rules=rules, flaps=flaps), judged)
    return _pace(decision, snapshot)


def _decide_service(service: str, snapshot: Snapshot, judged: Mapping[str, Judgement]) -> Decision:
    members = _sort_out(judged)
    unfit = _remember_unfit(service, members.unfit, snapshot)
    lost = _find_lost(snapshot.files, snapshot.rules, members, unfit)
    grace = _find_grace(snapshot, members, lost)
    damped = _find_damped(service, snapshot, members.alive)
    timed = {
        **_find_draining(service, snapshot, members.leaving),
        **grace,
        **damped,
        **_find_held(snapshot, members, {name: gone for name, gone in lost.items() if name not in grace}, lost),
    }
    entries: dict[Key, Entry] = {}
    notable: dict[Key, Entry] = {}
    servers = []
    serving = State.SERVING
    for name, judgement in judged.items():
        key = (service, name)
        if timed and name in timed:
            entry = timed[name]
        elif judgement.file.status == ALIVE or judgement.is_balancer:
            entry = judgement.entry
        else:
            entry = _explain_absent(judgement.file)
        if snapshot.refused:
            entry = _quarantine_refused(entry, snapshot.refused.get(key))
        entries[key] = entry
        if entry.state is not serving:
            notable[key] = entry
        if entry.server is not None:
            servers.append(entry.server)
    times_s = [((entry.until_ns or 0) - snapshot.at_ns) / 1e9 for entry in timed.values()]
    if damped and snapshot.view.down is not None:
        times_s.append(_LOOK_S)
    return Decision(entries, notable, tuple(servers), snapshot.flaps, unfit, min(times_s, default=None))


def _pace(decision: Decision, snapshot: Snapshot) -> Decision:
    """Decide how often each server is checked."""
    view = snapshot.view
    sight = Sight(view.known, view.down, snapshot.files, snapshot.rules.check_rate, snapshot.at_ns)
    servers, checks = set_paces(decision.servers, snapshot.checks, sight)
    return decision._replace(servers=servers, checks=checks)


def _locate(snapshot: Snapshot) -> Here:
    """Return what is known of the balancers' own addresses; this balancer's is remembered when Serf forgets it."""
    rules = snapshot.rules
    addresses = {}
    for name, file in snapshot.files.items():
        if file.status == ALIVE and rules.is_balancer(file.member):
            with contextlib.suppress(ValueError):
                addresses[name] = read_address(file.member.address)
    own = None
    with contextlib.suppress(ValueError):
        own = read_address(rules.self_address) if rules.self_address else addresses.get(rules.self_name)
    return locate(rules.binds, own, [address.text for address in addresses.values()], rules.local)


def _update_flaps(snapshot: Snapshot, rules: Rules) -> Mapping[str, Flap]:
    before, files = snapshot.flaps, snapshot.files
    if not before and all(file.status != FAILED for file in files.values()):
        return before
    admitted = ((name, file.status) for name, file in files.items() if rules.admit(file.member))
    alive = {name: status == ALIVE for name, status in admitted if status in (ALIVE, FAILED)}
    if 2 * sum(alive.values()) < len(alive):
        return before  # the gossip failed, or this balancer's part of it: no node is to blame
    return damping.update(before, alive, rules.flaps, snapshot.at_ns / 1e9)


def _sort_out(judged: Mapping[str, Judgement]) -> _Sorted:
    members = _Sorted({}, {}, {}, {})
    for name, judgement in judged.items():
        if judgement.is_balancer:
            continue
        file = judgement.file
        if judgement.server is None:
            if file.status in (ALIVE, FAILED):
                members.unfit[name] = judgement.entry
        elif file.status == ALIVE:
            members.alive[name] = judgement.server
        else:
            group = members.failed if file.status == FAILED else members.leaving
            group[name] = Gone(judgement.server, file.mtime_ns)
    return members


def _remember_unfit(service: str, names: Iterable[str], snapshot: Snapshot) -> dict[Key, Gone]:
    """Return what the unfit members were, and since when they are unfit: a node file says that only of a failure."""
    unfit = {}
    for name in names:
        key = (service, name)
        if key in snapshot.unfit:
            unfit[key] = snapshot.unfit[key]
        elif key in snapshot.published:
            line, file = snapshot.published[key], snapshot.files[name]
            with contextlib.suppress(ValueError):
                server = read_line(key, line.endpoint, line.weight)
                unfit[key] = Gone(server, snapshot.at_ns if file.status == ALIVE else file.mtime_ns)
    return unfit


def _find_lost(
    files: Mapping[str, NodeFile], rules: Rules, members: _Sorted, unfit: Mapping[Key, Gone]
) -> dict[str, Gone]:
    """Return the servers that were lost without having left, and when.

    A server is not lost but replaced when another member has its address and port. The server of an unfit member still
    runs in HAProxy as it was.
    """
    lost = members.failed | {name: gone for (_, name), gone in unfit.items() if rules.allows(gone.server)}
    if not lost:
        return {}
    takers: dict[str, set[str]] = {}
    for name, server in members.alive.items():
        takers.setdefault(server.endpoint, set()).add(name)
    for name, file in files.items():
        if file.status == ALIVE and not rules.admit(file.member) and "port" in file.member.tag_values():
            with contextlib.suppress(ValueError):
                takers.setdefault(rules.read_claim(file.member).endpoint, set()).add(name)
    return {name: gone for name, gone in lost.items() if takers.get(gone.server.endpoint, {name}) <= {name}}


def _find_draining(service: str, snapshot: Snapshot, leaving: Mapping[str, Gone]) -> dict[str, Entry]:
    """Return the entries of nodes that left and still have clients."""
    draining = {}
    for name, gone in leaving.items():
        left_s = _time_left_s(gone, snapshot.rules.drain_timeout_s, snapshot.at_ns)
        if left_s > 0 and _has_clients(snapshot, (service, name)):
            server = gone.server._replace(weight=0)
            reason = "it left, and its clients may finish"
            draining[name] = Entry(State.DRAINING, reason, server, gone.at_ns, _end_ns(snapshot, left_s))
    return draining


def _find_grace(snapshot: Snapshot, members: _Sorted, lost: Mapping[str, Gone]) -> dict[str, Entry]:
    """Return the entries of nodes that failed a moment ago."""
    grace = {}
    for name in members.failed.keys() & lost.keys():
        gone = lost[name]
        left_s = _time_left_s(gone, snapshot.rules.failed_grace_s, snapshot.at_ns)
        if left_s > 0:
            reason = "it failed in Serf a moment ago"
            grace[name] = Entry(State.GRACE, reason, gone.server, gone.at_ns, _end_ns(snapshot, left_s))
    return grace


def _find_damped(service: str, snapshot: Snapshot, alive: Mapping[str, Server]) -> dict[str, Entry]:
    """Return the entries of nodes that flap; none while HAProxy considers all other nodes down."""
    damped_s = damping.damp(snapshot.flaps, alive, snapshot.rules.flaps, snapshot.at_ns / 1e9)
    down = snapshot.view.down
    if down and down >= {(service, name) for name in alive if name not in damped_s}:
        return {}
    reason = "it failed and came back too often"
    return {
        name: Entry(State.DAMPED, reason, None, int(snapshot.flaps[name].at_s * 1e9), _end_ns(snapshot, left_s))
        for name, left_s in damped_s.items()
    }


def _find_held(
    snapshot: Snapshot, members: _Sorted, candidates: Mapping[str, Gone], lost: Mapping[str, Gone]
) -> dict[str, Entry]:
    """Return the entries of those candidates that were lost together with many others."""
    losses = {name: gone.at_ns for name, gone in lost.items()}
    leaves_ns = [gone.at_ns for gone in members.leaving.values()]
    held_s = hold(losses, len(members.alive), leaves_ns, snapshot.rules.guard, snapshot.at_ns)
    held = {}
    for name in held_s.keys() & candidates.keys():
        what = members.unfit[name].reason if name in members.unfit else "it failed in Serf"
        reason = f"{what}; too many servers were lost at once"
        gone = candidates[name]
        held[name] = Entry(State.HELD, reason, gone.server, gone.at_ns, _end_ns(snapshot, held_s[name]))
    return held


def _has_clients(snapshot: Snapshot, key: Key) -> bool:
    """Return whether a server has requests to finish; sticky clients may come back to it at any time."""
    view = snapshot.view
    return bool(view.connection_counts.get(key)) or (snapshot.rules.is_sticky and key in view.serving)


def _explain_absent(file: NodeFile) -> Entry:
    reason = {FAILED: "it failed in Serf", LEFT: "it left", LEAVING: "it is leaving"}[file.status]
    return Entry(State.GONE, reason, None, file.mtime_ns)


def _quarantine_refused(entry: Entry, refused: tuple[Server, str] | None) -> Entry:
    if refused is None or refused[0] != entry.server:
        return entry
    return Entry(State.QUARANTINED, f"HAProxy refuses it: {refused[1]}", None, entry.since_ns)


def _end_ns(snapshot: Snapshot, left_s: float) -> int:
    return snapshot.at_ns + int(left_s * 1e9)


def _time_left_s(gone: Gone, span_s: float, now_ns: int) -> float:
    """Return what is left of a span since a loss; a clock that was set back ends it at once."""
    age_s = (now_ns - gone.at_ns) / 1e9
    return span_s - max(0.0, age_s) if age_s >= -_CLOCK_S else 0.0
