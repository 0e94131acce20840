"""The end of a pass: what to say about it, and what to write down for the next one."""

import dataclasses
import time
from collections.abc import Mapping

from serf_haproxy.control.corrections import Heard
from serf_haproxy.control.outcome import HELD, LAST, Condition, Outcome, Verdict, look_again_s
from serf_haproxy.control.record import Record
from serf_haproxy.control.state import State as StateDirectory
from serf_haproxy.control.state import parse_served
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import Key

_SHOWN_COUNT = 10
_KEPT = (State.HELD, State.LAST)


def complete(outcome: Outcome, snapshot: Snapshot, decision: Decision, heard: Heard, before: Record) -> Outcome:
    """Return the outcome with its conditions, its problems, and when the next pass is due without news.

    Args:
        outcome: What acting came to.
        snapshot: What was read.
        decision: What was decided.
        heard: What Serf said.
        before: What the pass before left behind.
    """
    held, last = decision.find(State.HELD), decision.find(State.LAST)
    conditions = [Condition(HELD, _explain_held(held, snapshot.at_ns))] if held else []
    if last:
        why = "no other server is up; until one is, requests go to these that leave, drain or are lost"
        conditions.append(Condition(LAST, f"{why}: {_list_names(last)}"))
    drained_s = [
        (snapshot.at_ns - (entry.since_ns or 0)) / 1e9
        for entry in decision.find(State.DRAINING).values()
        if entry.until_ns is not None
    ]
    times_s = [outcome.again_s, look_again_s(min(drained_s)) if drained_s else None, decision.changes_in_s]
    return dataclasses.replace(
        outcome,
        conditions=tuple(conditions),
        has_roster=heard.roster is not None,
        corrected_count=len(heard.corrections.record) + len(heard.corrections.absent),
        problems=outcome.problems + heard.problems + _list_problems(snapshot, decision, before),
        again_s=min((time_s for time_s in times_s if time_s is not None), default=None),
    )


def remember_nodes(state: StateDirectory, snapshot: Snapshot, decision: Decision, heard: Heard, served: str) -> str:
    """Write down which nodes flap, and the node files of all servers; return the latter.

    A node directory that has to be made again gets these node files back.

    Args:
        state: Where to write.
        snapshot: What was read.
        decision: What was decided.
        heard: The node files.
        served: What the pass before wrote.
    """
    if decision.flaps != snapshot.flaps:
        state.write_flaps(decision.flaps)
    if decision.known != state.read_known():
        state.write_known(decision.known)
    files = heard.files
    if any(server.name not in files for server in decision.servers):
        remembered = parse_served(served).items()
        files = {name: NodeFile(status, member, 0) for name, (status, member) in remembered} | files
    lines = "".join(files[server.name].line for server in decision.servers if server.name in files)
    if lines != served:
        state.write_served(lines)
    return lines


def make_record(outcome: Outcome, snapshot: Snapshot, decision: Decision, heard: Heard, before: Record) -> Record:
    """Return the record of a pass, but for its times and the refused servers, from that of the pass before."""
    # A refused configuration changed nothing.
    digest = outcome.digest or (before.digest if outcome.verdict is Verdict.REJECTED else "")
    files = heard.files
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
        from_roster={
            name: mtime_ns
            for name, mtime_ns in from_roster.items()
            if name in files and files[name].mtime_ns == mtime_ns
        },
        refused=dict(heard.roster.refused) if heard.roster else before.refused,
        unfit=list(decision.unfit.values()),
        strays={ascii(stray.name)[1:-1]: stray.reason for stray in heard.strays},
    )


def _explain_held(held: dict[Key, Entry], now_ns: int) -> str:
    until_s = max(entry.until_ns or now_ns for entry in held.values()) / 1e9
    until = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(until_s))
    how = f"HAProxy's health checks decide until {until} or `serf-haproxy release`"
    return f"too many servers were lost at once to be believed; {how}: {_list_names(held)}"


def _list_names(entries: Mapping[Key, Entry]) -> str:
    names = [name for _, name in entries]
    return " ".join(names[:_SHOWN_COUNT]) + (f" and {len(names) - _SHOWN_COUNT} more" if names[_SHOWN_COUNT:] else "")


def _list_problems(snapshot: Snapshot, decision: Decision, before: Record) -> tuple[str, ...]:
    refused = dict(snapshot.roster.refused) if snapshot.roster else before.refused
    alive = {key for key in decision.unfit if key[1] in snapshot.files and snapshot.files[key[1]].status == ALIVE}
    return (
        *(
            f"node {key[1]} is {entry.state}: {entry.reason}"
            for key, entry in decision.notable.items()
            if entry.state in (State.QUARANTINED, State.DAMPED) or (key in alive and entry.state in _KEPT)
        ),
        *(f"node {name} is refused: {reason}" for name, reason in refused.items()),
        *(f"file {stray.name!a} in the node directory is ignored: {stray.reason}" for stray in snapshot.strays),
    )
