"""The decision: from a snapshot to the servers that HAProxy should have, and why. Pure."""

import math
from collections.abc import Mapping

from serf_haproxy.policy import damping
from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.damping import Flap
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.guard import hold
from serf_haproxy.policy.judgement import Judgement, Memo, explain_absent, judge, quarantine_refused
from serf_haproxy.policy.last_resort import find_last
from serf_haproxy.policy.looks import find_pause, list_looks, list_news
from serf_haproxy.policy.maintenance import obey
from serf_haproxy.policy.members import Members, find_lost, remember_servers, remember_unfit, sort_out
from serf_haproxy.policy.pace import Sight, set_paces
from serf_haproxy.policy.partition import list_unnamed, note_offers, put_together, take_apart
from serf_haproxy.policy.recall import list_inputs, recall
from serf_haproxy.policy.scale import scale_up
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone, Snapshot
from serf_haproxy.policy.split import exclude, mark_spared, share_out
from serf_haproxy.serf.events import ALIVE, FAILED
from serf_haproxy.services import Key

_CLOCK_S = 5.0  # the coarse clock of the files runs a little behind


def decide(snapshot: Snapshot, memo: Memo | None = None) -> Decision:
    """Return what should be. A node that cannot become a server is quarantined alone.

    Args:
        snapshot: What was read.
        memo: The owner's memo of earlier decisions, which is brought up to date.
    """
    memo = memo or Memo()
    inputs = list_inputs(snapshot)
    if decision := recall(inputs, snapshot.at_ns, memo):
        return decision
    decision = _decide(snapshot, memo)
    memo.last = inputs, snapshot.at_ns, decision
    return decision


def _decide(snapshot: Snapshot, memo: Memo) -> Decision:
    here = snapshot.rules.locate(snapshot.files)
    further_rules = tuple(rules._replace(here=here) for rules in snapshot.further_rules)
    snapshot = snapshot._replace(rules=snapshot.rules._replace(here=here), further_rules=further_rules)
    note_offers(snapshot.files, memo)
    decisions = [_decide_service(part, judge(part.files, part.rules, memo)) for part in take_apart(snapshot, memo)]
    decision = _pace(put_together(decisions, list_unnamed(snapshot, memo)), snapshot, memo)
    times_s = [time_s for time_s in (decision.changes_in_s, snapshot.orders.ends_in_s) if time_s is not None]
    return decision._replace(changes_in_s=min(times_s, default=None))


def _decide_service(snapshot: Snapshot, judged: Mapping[str, Judgement]) -> Decision:
    service = snapshot.rules.service
    snapshot, judged, stopped = obey(snapshot, judged)
    members = sort_out(service, judged, snapshot)
    unfit = remember_unfit(service, members.unfit, snapshot)
    lost = find_lost(snapshot, members, unfit)
    losses = {name: gone.at_ns for name, gone in lost.items() if snapshot.has_been_up(gone.server)}
    flaps = _update_flaps(snapshot, members, losses)
    grace = _find_grace(snapshot, members, lost)
    damped = _find_damped(snapshot, members.alive, flaps)
    timed = {
        **_find_draining(service, snapshot, members.leaving),
        **grace,
        **damped,
        **_find_held(snapshot, members, losses, lost, grace),
    }
    entries: dict[Key, Entry] = {}
    for name, judgement in judged.items():
        key = (service, name)
        if timed and name in timed:
            entry = exclude(timed[name], snapshot.rules)
        elif judgement.file.status == ALIVE or judgement.is_balancer:
            entry = judgement.entry
        else:
            entry = explain_absent(judgement.file)
        if snapshot.refused:
            entry = quarantine_refused(entry, snapshot.refused.get(key), snapshot.rules.gives_weights)
        entries[key] = entry
    last = find_last(snapshot, entries, judged, unfit)
    if last or stopped:
        entries = dict(sorted({**entries, **last, **stopped}.items()))
    serving = State.SERVING
    notable = {key: entry for key, entry in entries.items() if entry.state is not serving}
    servers = tuple([entry.server for entry in entries.values() if entry.server is not None])
    times_s = [((entry.until_ns or 0) - snapshot.at_ns) / 1e9 for entry in timed.values()]
    times_s += list_looks(snapshot, notable.values())
    remembered = servers
    if snapshot.rules.split and servers:  # HAProxy does not report which of a version's servers are up
        times_s.append(find_pause(list_news(snapshot), snapshot.at_ns))
        servers = share_out(snapshot.rules.shares, servers, snapshot.is_up)
        remembered = mark_spared(remembered, servers)
    if snapshot.rules.measured_by:
        servers = scale_up(servers, snapshot.rules.measured_by)
    known = remember_servers(snapshot, remembered)
    kept_flaps = {(service, name): flap for name, flap in flaps.items()}
    return Decision(entries, notable, servers, kept_flaps, unfit, known, min(times_s, default=None))


def _pace(decision: Decision, snapshot: Snapshot, memo: Memo) -> Decision:
    """Decide how often each server is checked."""
    view = snapshot.view
    proven_count = sum(one.is_served and one.was_up for one in decision.known.values())
    sight = Sight(view.known, view.down, snapshot.files, snapshot.rules.check_rate, snapshot.at_ns, proven_count)
    servers, checks = set_paces(decision.servers, snapshot.checks, sight, memo.paced)
    return decision._replace(servers=servers, checks=checks)


def _update_flaps(snapshot: Snapshot, members: Members, losses: Mapping[str, int]) -> Mapping[str, Flap]:
    before = {name: flap for (_, name), flap in snapshot.flaps.items()}
    files, rules = snapshot.files, snapshot.rules
    if not before and all(file.status != FAILED for file in files.values()):
        return before
    # When servers are lost together, the gossip failed, or this balancer's part of it: no node is to blame.
    forever = rules.guard._replace(hold_s=math.inf, released_ns=0, released={})
    together = hold(
        losses, _count_standing(snapshot, members), _list_leaves(snapshot, members), forever, snapshot.at_ns
    )
    admitted = (
        (name, file.status) for name, file in files.items() if rules.admit(file.member) and name not in together
    )
    alive = {name: status == ALIVE for name, status in admitted if status in (ALIVE, FAILED)}
    return damping.update(before, alive, rules.flaps, snapshot.at_ns / 1e9)


def _find_draining(service: str, snapshot: Snapshot, leaving: Mapping[str, Gone]) -> dict[str, Entry]:
    """Return the entries of nodes that left and still have clients."""
    draining = {}
    for name, gone in leaving.items():
        left_s = _time_left_s(gone, snapshot.rules.drain_timeout_s, snapshot.at_ns)
        if left_s > 0 and _has_clients(snapshot, (service, name)):
            server, reason = gone.server._replace(weight=0), "it left, and its clients may finish"
            until_ns = _end_ns(snapshot, left_s)
            draining[name] = Entry(State.DRAINING, reason, server, gone.at_ns, until_ns, Cause.FINISHING)
    return draining


def _find_grace(snapshot: Snapshot, members: Members, lost: Mapping[str, Gone]) -> dict[str, Entry]:
    """Return the entries of nodes that failed a moment ago."""
    grace = {}
    for name in members.failed.keys() & lost.keys():
        gone = lost[name]
        left_s = _time_left_s(gone, snapshot.rules.failed_grace_s, snapshot.at_ns)
        if left_s > 0:
            until_ns = _end_ns(snapshot, left_s)
            reason = "it failed in Serf a moment ago"
            grace[name] = Entry(State.GRACE, reason, gone.server, gone.at_ns, until_ns, Cause.GRACE)
    return grace


def _find_damped(snapshot: Snapshot, alive: Mapping[str, Server], flaps: Mapping[str, Flap]) -> dict[str, Entry]:
    """Return the entries of nodes that flap; none while no other server can serve."""
    down = snapshot.view.down or frozenset()
    if not any(flap.is_damped for flap in flaps.values()):
        return {}
    able = {
        name: server
        for name, server in alive.items()
        if server.weight != 0 and (server.key not in down or (name in flaps and flaps[name].is_damped))
    }
    damped_s = damping.damp(flaps, able, snapshot.rules.flaps, snapshot.at_ns / 1e9)
    if not any(snapshot.stands(server) for name, server in able.items() if name not in damped_s):
        return {}
    reason = "it failed and came back too often"
    return {
        name: Entry(State.DAMPED, reason, None, int(flaps[name].at_s * 1e9), _end_ns(snapshot, left_s), Cause.FLAPPING)
        for name, left_s in damped_s.items()
    }


def _find_held(
    snapshot: Snapshot,
    members: Members,
    losses: Mapping[str, int],
    lost: Mapping[str, Gone],
    grace: Mapping[str, Entry],
) -> dict[str, Entry]:
    """Return the entries of servers that were lost together with many others, and are not in their grace."""
    if not losses:
        return {}
    standing_count, leaves_ns = _count_standing(snapshot, members), _list_leaves(snapshot, members)
    held_s = hold(losses, standing_count, leaves_ns, snapshot.rules.guard, snapshot.at_ns)
    held = {}
    for name in held_s.keys() - grace.keys():
        what = members.unfit[name].reason if name in members.unfit else "it failed in Serf"
        reason = f"{what}; too many servers were lost at once"
        gone = lost[name]
        until_ns = _end_ns(snapshot, held_s[name])
        held[name] = Entry(State.HELD, reason, gone.server, gone.at_ns, until_ns, Cause.MASS_LOSS)
    return held


def _count_standing(snapshot: Snapshot, members: Members) -> int:
    """Return how many places can serve: one program under many names is no more than one."""
    return len({server.endpoint for server in members.alive.values() if snapshot.stands(server)})


def _list_leaves(snapshot: Snapshot, members: Members) -> list[int]:
    return [gone.at_ns for gone in members.leaving.values() if snapshot.has_been_up(gone.server)]


def _has_clients(snapshot: Snapshot, key: Key) -> bool:
    """Return whether a server has requests to finish; sticky clients may come back to it at any time."""
    view = snapshot.view
    return bool(view.connection_counts.get(key)) or (snapshot.rules.is_sticky and key in view.serving)


def _end_ns(snapshot: Snapshot, left_s: float) -> int:
    return snapshot.at_ns + int(left_s * 1e9)


def _time_left_s(gone: Gone, span_s: float, now_ns: int) -> float:
    """Return what is left of a span since a loss; a clock that was set back ends it at once."""
    age_s = (now_ns - gone.at_ns) / 1e9
    return span_s - max(0.0, age_s) if age_s >= -_CLOCK_S else 0.0
