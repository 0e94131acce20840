"""The end of a pass: what to say about it, and what to write down for the next one."""

import dataclasses
import time
from collections.abc import Iterable, Mapping

from serf_haproxy.control.authorities import list_copies
from serf_haproxy.control.corrections import Heard
from serf_haproxy.control.outcome import (
    ALONE,
    DIFFERS,
    FROZEN,
    HELD,
    LAST,
    PAUSED,
    SPLIT,
    Condition,
    Outcome,
    Verdict,
    look_again_s,
)
from serf_haproxy.control.record import Record, list_checks
from serf_haproxy.control.state import State as StateDirectory
from serf_haproxy.control.state import parse_served
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.orders import explain
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.policy.split import find_missing
from serf_haproxy.serf.events import ALIVE, FAILED
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.printing import printable, quoted
from serf_haproxy.services import Key, format_key

_SHOWN_COUNT = 10
_KEPT = (State.HELD, State.LAST)
_ALONE_REASON = "Serf knows no other member that is alive; see whether the names in SERF_JOIN lead to the cluster"
_WAITING_REASON = (
    "versions with a share have no server that gets requests; the other versions get their share meanwhile"
)
_PAUSED_REASON = "nothing is changed at HAProxy until it ends, or until `serf-haproxy resume`"
_LAST_REASON = "no other server is up; until one is, requests go to these that leave, drain or are lost"


def complete(outcome: Outcome, snapshot: Snapshot, decision: Decision, heard: Heard, before: Record) -> Outcome:
    """Return the outcome with its conditions, its problems, and when the next pass is due without news.

    Args:
        outcome: What acting came to.
        snapshot: What was read.
        decision: What was decided.
        heard: What Serf said.
        before: What the pass before left behind.
    """
    conditions = outcome.conditions + list_conditions(snapshot, decision, before)
    if left := before.read_left() if outcome.left is None else outcome.left:
        conditions += (Condition(DIFFERS, _explain_left(left)),)
    drained_s = [
        (snapshot.at_ns - (entry.since_ns or 0)) / 1e9
        for entry in decision.find(State.DRAINING).values()
        if entry.until_ns is not None and entry.order is None
    ]
    times_s = [
        outcome.again_s,
        look_again_s(min(drained_s)) if drained_s else None,
        decision.changes_in_s,
        snapshot.peers.changes_in_s,
        snapshot.services.announced.changes_in_s,
    ]
    return dataclasses.replace(
        outcome,
        conditions=tuple(conditions),
        has_roster=heard.roster is not None,
        corrected_count=len(heard.corrections.record) + len(heard.corrections.absent),
        problems=(
            outcome.problems + heard.problems + _list_problems(snapshot, decision, before) + outcome.certificate_faults
        ),
        again_s=min((time_s for time_s in times_s if time_s is not None), default=None),
    )


def is_alone(files: Mapping[str, NodeFile], self_name: str, before: Record) -> bool:
    """Return whether Serf knows no other living member, although it has known one that did not leave.

    It stays so until another member is alive: Serf forgets a member that failed after a day.
    """
    others = [file.status for name, file in files.items() if name != self_name]
    if not self_name or ALIVE in others:
        return False
    return FAILED in others or before.has_condition(ALONE)


def remember_served(state: StateDirectory, outcome: Outcome, decision: Decision, heard: Heard, served: str) -> str:
    """Write the servers and their node files to the state directory; return the text of the node files.

    A node directory that has to be made again gets these node files back.

    Args:
        state: Where to write.
        outcome: What acting came to.
        decision: What was decided.
        heard: The node files after the corrections.
        served: What the pass before wrote.
    """
    # HAProxy gets none of the new servers: they are still new afterwards.
    if outcome.has_condition(FROZEN) or outcome.verdict is Verdict.PAUSED:
        return served
    if decision.known != state.read_known():
        state.write_known(decision.known)
    files = heard.files
    if any(server.name not in files for server in decision.servers):
        remembered = parse_served(served).items()
        files = {name: NodeFile(status, member, 0) for name, (status, member) in remembered} | files
    names = dict.fromkeys(server.name for server in decision.servers)
    lines = "".join(files[name].line for name in names if name in files)
    if lines != served:
        state.write_served(lines)
    return lines


def make_record(outcome: Outcome, snapshot: Snapshot, decision: Decision, heard: Heard, before: Record) -> Record:
    """Return the record of a pass, but for its times and the refused servers, from that of the pass before."""
    # A refused configuration changed nothing, and neither did a pass while there is a pause.
    digest = outcome.digest or (before.digest if outcome.verdict in (Verdict.REJECTED, Verdict.PAUSED) else "")
    files = heard.files
    at_s = snapshot.at_ns / 1e9
    from_roster = before.from_roster | {
        member.name: files[member.name].mtime_ns for _, member in heard.corrections.record if member.name in files
    }
    return Record(
        verdict=outcome.verdict,
        reason=outcome.reason,
        conditions=[list(condition) for condition in outcome.conditions],
        digest=digest,
        changed_at_s=time.time() if digest != before.digest else before.changed_at_s,
        self_name=snapshot.rules.self_name,
        self_address=snapshot.rules.self_address,
        peers=snapshot.peers.others,
        from_roster={
            name: mtime_ns
            for name, mtime_ns in from_roster.items()
            if name in files and files[name].mtime_ns == mtime_ns
        },
        refused=dict(heard.roster.refused) if heard.roster else before.refused,
        frozen_at_s=at_s - before.frozen_for_s(at_s) if outcome.has_condition(FROZEN) else 0.0,
        checks=list_checks(decision.checks),
        unfit=list(decision.unfit.values()),
        left=before.left if outcome.left is None else {"/".join(key): said for key, said in outcome.left.items()},
        withheld=before.withheld,
        measured=dict(snapshot.services.measured),
        authorities=list_copies(snapshot.services) if outcome.is_in_force else before.authorities,
        strays={printable(stray.name): printable(stray.reason) for stray in heard.strays},
        certificate_faults=list(outcome.certificate_faults),
        announced={name: int(at_s) for name, at_s in snapshot.services.announced.seen_s.items()},
        announced_at_s=snapshot.services.announced.changed_at_s,
        heard_at_s=at_s if heard.roster else before.heard_at_s,
        certificate_ends=dict(outcome.certificate_ends),
    )


def list_conditions(snapshot: Snapshot, decision: Decision, before: Record) -> tuple[Condition, ...]:
    """Return the conditions that follow from a snapshot and its decision."""
    held = decision.find(State.HELD)
    conditions: tuple[Condition, ...] = (Condition(HELD, _explain_held(held, snapshot.at_ns)),) if held else ()
    if last := decision.find(State.LAST):
        conditions += (Condition(LAST, f"{_LAST_REASON}: {_join_names(map(format_key, last))}"),)
    if is_alone(snapshot.files, snapshot.rules.self_name, before):
        conditions += (Condition(ALONE, _ALONE_REASON),)
    if order := snapshot.orders.pause:
        conditions += (Condition(PAUSED, f"{explain(order)}; {_PAUSED_REASON}"),)
    if waiting := _list_waiting(snapshot, decision):
        conditions += (Condition(SPLIT, f"{_WAITING_REASON}: {_join_names(waiting)}"),)
    return conditions


def _list_waiting(snapshot: Snapshot, decision: Decision) -> list[str]:
    """Return the versions that wait for a server, each as service/version."""
    return [
        f"{rules.service}/{version}"
        for rules in (snapshot.rules, *snapshot.further_rules)
        if rules.split
        for version in find_missing(
            rules.shares, [server for server in decision.servers if server.service == rules.service]
        )
    ]


def is_unfit(decision: Decision, key: Key, file: NodeFile | None) -> bool:
    """Return whether a node is alive and cannot be a server, or HAProxy refuses its server.

    The server of such a node may be held, or be the last one.
    """
    state = decision.entries[key].state
    is_kept = state in _KEPT and key in decision.unfit
    return state is State.QUARANTINED or (is_kept and file is not None and file.status == ALIVE)


def _explain_held(held: dict[Key, Entry], now_ns: int) -> str:
    shown = _join_names(map(format_key, held))
    until_s = max(entry.until_ns or now_ns for entry in held.values()) / 1e9
    until = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(until_s))
    how = f"HAProxy's health checks decide until {until} or `serf-haproxy release`"
    return f"too many servers were lost at once to be believed; {how}: {shown}"


def _explain_left(left: Mapping[Key, str]) -> str:
    how = "a reload has not changed that, and they are left alone until their lines or HAProxy's report change"
    return f"servers are not as the configuration says; {how}: {_join_names('/'.join(key) for key in sorted(left))}"


def _join_names(names: Iterable[str]) -> str:
    listed = list(names)
    return " ".join(listed[:_SHOWN_COUNT]) + (
        f" and {len(listed) - _SHOWN_COUNT} more" if listed[_SHOWN_COUNT:] else ""
    )


def _list_problems(snapshot: Snapshot, decision: Decision, before: Record) -> tuple[str, ...]:
    refused = dict(snapshot.roster.refused) if snapshot.roster else before.refused
    return (
        *(
            f"node {format_key(key)} is {entry.state}: {entry.reason}"
            for key, entry in decision.notable.items()
            if entry.state is State.DAMPED or is_unfit(decision, key, snapshot.files.get(key[1]))
        ),
        *snapshot.services.faults,
        *(f"node {name} is refused: {reason}" for name, reason in refused.items()),
        *(f"file {quoted(stray.name)} in the node directory is ignored: {stray.reason}" for stray in snapshot.strays),
    )
