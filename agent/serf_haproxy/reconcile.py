"""One pass: read, decide, act, and say what came of it.

The steps are told to `on_step` as they end, so that a test can cut a pass after any of them. Every step can be
repeated, and every decision follows from files and from HAProxy's own answers: whatever was cut is repaired by
the next pass.
"""

import dataclasses
import os
import time
from collections.abc import Callable

from serf_haproxy import flaps, haproxy, nodes, pool
from serf_haproxy.errors import SystemFault
from serf_haproxy.events import ALIVE, FAILED
from serf_haproxy.files import locked
from serf_haproxy.goal import decide, rules_of
from serf_haproxy.outcome import Outcome, Verdict
from serf_haproxy.runtime import Running, read_running
from serf_haproxy.salvage import make_best_transition
from serf_haproxy.settings import Settings
from serf_haproxy.state import (
    Faults,
    Record,
    read_faults,
    read_flaps,
    read_record,
    read_unfit,
    write_flaps,
    write_record,
)
from serf_haproxy.workers import complain, read_old_workers

_LOCK_S = 60.0
_DRAINED_S = 0.25  # how often it is looked whether a draining server's last connection has ended


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What a pass has read."""

    files: dict[str, nodes.NodeFile]
    strays: list[nodes.Stray]
    roster: pool.Roster | None
    corrections: pool.Corrections
    record: Record
    self_name: str
    running: Running | None
    pool: pool.Pool


def reconcile(
    settings: Settings,
    ask: Callable[[], pool.Roster | None],
    is_resync: bool = True,
    on_step: Callable[[str], object] = str,
) -> Outcome:
    """Make one pass.

    Args:
        settings: The settings.
        ask: Asks Serf for its roster; None when it does not answer.
        is_resync: Whether to ask. It is asked all the same when a node file has tags that only it can tell apart.
        on_step: Told the name of each step that has ended.

    Raises:
        SystemFault: Files cannot be read or written, or HAProxy cannot be run; the live file is untouched.
    """
    started_s = time.time()
    with locked(os.path.join(settings.state_dir, "pass.lock"), _LOCK_S, "another pass"):
        inputs = _read(settings, ask, is_resync)
        on_step("read")
        named = haproxy.name_lost_socket(settings, inputs.running)
        outcome, faults = make_best_transition(
            named, inputs.pool.servers, inputs.running, read_faults(inputs.record), on_step
        )
        haproxy.tidy(settings)
        if named != settings and outcome.verdict is Verdict.RELOADED:
            outcome = dataclasses.replace(outcome, again_s=_DRAINED_S)
        if inputs.pool.held and outcome.verdict in (Verdict.UNCHANGED, Verdict.APPLIED, Verdict.RELOADED):
            outcome = dataclasses.replace(outcome, verdict=Verdict.HELD, reason=_why_held(inputs.pool))
        corrected_count = len(inputs.corrections.record) + len(inputs.corrections.absent)
        problems = outcome.problems + _problems(inputs)
        if inputs.roster or outcome.verdict is Verdict.RELOADED:
            problems += _watch_old_workers(settings)
        again_s = _again_s(outcome, inputs.pool)
        outcome = dataclasses.replace(outcome, corrected_count=corrected_count, problems=problems, again_s=again_s)
        _record(settings, inputs, outcome, faults, started_s)
        on_step("recorded")
    return outcome


def prepare_directories(settings: Settings) -> None:
    """Make the directories that we write to, where they are missing.

    Raises:
        SystemFault: One cannot be made.
    """
    parents = (os.path.dirname(settings.wake_fifo), os.path.dirname(settings.config_path))
    for path in (settings.nodes_dir, settings.state_dir, *parents):
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise SystemFault(f"cannot make {path}: {error.strerror}; make it and give it to this user") from error


def _read(settings: Settings, ask: Callable[[], pool.Roster | None], is_resync: bool) -> _Inputs:
    """Read the node files and let the roster correct them."""
    record = read_record(settings)
    files, strays = nodes.load(settings.nodes_dir)
    for remnant in filter(nodes.is_remnant, strays):
        nodes.forget(settings.nodes_dir, remnant.name)
    running = read_running(settings)
    # A node file does not go by itself: whoever removed it told nobody, so Serf is asked.
    gone = {name for _, name in (running and running.servers) or ()} - files.keys()
    is_certain = not gone and all(file.member.tags_are_certain() for file in files.values())
    roster = ask() if is_resync or not is_certain else None
    rules = rules_of(settings, roster.self_name if roster else record.self_name)
    corrections = pool.correct(files, roster) if roster else pool.Corrections((), ())
    for status, member in corrections.record:
        nodes.record(settings.nodes_dir, status, member, exactly=True)
    if corrections.record:
        files, strays = nodes.load(settings.nodes_dir)
    counts: dict[str, int] = {}
    for (_, name), seen in ((running and running.servers) or {}).items():
        counts[name] = counts.get(name, 0) + seen.connection_count
    flapping, down = _remember_flaps(settings, files, rules), _find_down(running)
    context = pool.Context(counts, flaps=flapping, unfit=read_unfit(record), down=down)
    decided = decide(settings, files, rules, context)
    forgotten = set(corrections.absent).difference(server.name for server in decided.servers)
    for name in forgotten:
        nodes.forget(settings.nodes_dir, name)
        del files[name]
    corrections = corrections._replace(absent=tuple(forgotten))
    strays = [stray for stray in strays if not nodes.is_remnant(stray)]
    return _Inputs(files, strays, roster, corrections, record, rules.self_name, running, decided)


def _find_down(running: Running | None) -> frozenset[str] | None:
    """Return the names of the servers that HAProxy takes for down; None when it does not say."""
    if running is None or running.servers is None:
        return None
    return frozenset(name for (_, name), seen in running.servers.items() if not seen.is_up)


def _remember_flaps(settings: Settings, files: dict[str, nodes.NodeFile], rules: pool.Rules) -> dict[str, flaps.Flap]:
    before = read_flaps(settings)
    admitted = ((name, file.status) for name, file in files.items() if rules.admit(file.member))
    alive = {name: status == ALIVE for name, status in admitted if status in (ALIVE, FAILED)}
    now = flaps.update(before, alive, rules.flaps, time.time())
    if now != before:
        write_flaps(settings, now)
    return now


def _why_held(decided: pool.Pool) -> str:
    names = " ".join(list(decided.held)[:10]) + (
        f" and {len(decided.held) - 10} more" if len(decided.held) > 10 else ""
    )
    until = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(time.time() + max(decided.held.values())))
    how = f"HAProxy's health checks decide until {until} or `serf-haproxy release`"
    return f"too many servers were lost at once to be believed; {how}: {names}"


def _again_s(outcome: Outcome, decided: pool.Pool) -> float | None:
    """Return when the next pass has something to do without any news; None for never."""
    times_s = [outcome.again_s, _DRAINED_S if decided.draining else None, decided.changes_in_s]
    return min((time_s for time_s in times_s if time_s is not None), default=None)


def _record(
    settings: Settings,
    inputs: _Inputs,
    outcome: Outcome,
    faults: Faults,
    started_s: float,
) -> None:
    before = inputs.record
    # What was refused changed nothing.
    digest = outcome.digest or (before.digest if outcome.verdict is Verdict.REJECTED else "")
    now_s = time.time()
    from_roster = before.from_roster | {
        member.name: inputs.files[member.name].mtime_ns
        for _, member in inputs.corrections.record
        if member.name in inputs.files
    }
    write_record(
        settings,
        Record(
            verdict=outcome.verdict,
            reason=outcome.reason,
            digest=digest,
            at_s=now_s,
            took_s=now_s - started_s,
            changed_at_s=now_s if digest != before.digest else before.changed_at_s,
            self_name=inputs.self_name,
            from_roster={
                name: mtime_ns
                for name, mtime_ns in sorted(from_roster.items())
                if name in inputs.files and inputs.files[name].mtime_ns == mtime_ns
            },
            refused=dict(inputs.roster.refused) if inputs.roster else before.refused,
            faults=list(faults),
            unfit=list(inputs.pool.unfit.values()),
            strays={ascii(stray.name)[1:-1]: stray.reason for stray in inputs.strays},
        ),
    )


def _watch_old_workers(settings: Settings) -> tuple[str, ...]:
    old = read_old_workers(settings)
    complaint = complain(old, settings.old_workers_max) if old else None
    return (complaint,) if complaint else ()


def _problems(inputs: _Inputs) -> tuple[str, ...]:
    refused = dict(inputs.roster.refused) if inputs.roster else inputs.record.refused
    return (
        *(f"node {name} is quarantined: {reason}" for name, reason in inputs.pool.quarantined.items()),
        *(f"node {name} is damped: it failed and came back too often" for name in inputs.pool.damped),
        *(f"node {name} is refused: {reason}" for name, reason in refused.items()),
        *(f"file {stray.name!a} in the node directory is ignored: {stray.reason}" for stray in inputs.strays),
    )
