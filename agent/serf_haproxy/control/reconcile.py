"""One pass: read, decide, act, and say what came of it.

The steps are told to `on_step` as they end, so that a test can cut a pass after any of them. Every step can be
repeated, and every decision follows from files and from HAProxy's own answers: whatever was cut is repaired by
the next pass.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable

from serf_haproxy.control.fallback import Attempt, make_best_transition
from serf_haproxy.control.observe import Inputs, read_inputs
from serf_haproxy.control.outcome import NO_PAUSE, Outcome, Pause, Verdict, look_again_s
from serf_haproxy.control.state import Faults, Record, read_faults, read_served, write_record, write_served
from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy import config_file
from serf_haproxy.haproxy.workers import complain, read_old_workers
from serf_haproxy.policy import decide as pool
from serf_haproxy.serf import nodes
from serf_haproxy.serf.roster import Roster
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import locked

_LOCK_S = 60.0


def reconcile(
    settings: Settings,
    ask: Callable[[], Roster | None],
    is_resync: bool = True,
    on_step: Callable[[str], object] = str,
    pause: Pause = NO_PAUSE,
) -> Outcome:
    """Make one pass.

    Args:
        settings: The settings.
        ask: Asks Serf for its roster; None when it does not answer.
        is_resync: Whether to ask. It is asked all the same when a node file has tags that only it can tell apart.
        on_step: Told the name of each step that has ended.
        pause: For how long there must not be a reload.

    Raises:
        SystemFault: Files cannot be read or written, or HAProxy cannot be run; the live file is untouched.
    """
    started_s = time.time()
    with locked(os.path.join(settings.state_dir, "pass.lock"), _LOCK_S, "another pass"):
        inputs = read_inputs(settings, ask, is_resync)
        on_step("read")
        named = config_file.name_lost_socket(settings, inputs.running)
        attempt = Attempt(named, inputs.running, on_step, pause)
        outcome, faults = make_best_transition(attempt, inputs.pool.servers, read_faults(inputs.record))
        config_file.tidy(settings)
        if named != settings and outcome.verdict is Verdict.RELOADED:
            outcome = dataclasses.replace(outcome, again_s=look_again_s(0))
        if inputs.pool.held and outcome.verdict in (Verdict.UNCHANGED, Verdict.APPLIED, Verdict.RELOADED):
            outcome = dataclasses.replace(outcome, verdict=Verdict.HELD, reason=_why_held(inputs.pool))
        corrected_count = len(inputs.corrections.record) + len(inputs.corrections.absent)
        problems = outcome.problems + inputs.problems + _problems(inputs)
        if inputs.roster or outcome.has_reloaded:
            problems += _watch_old_workers(settings)
        again_s = _again_s(outcome, inputs)
        outcome = dataclasses.replace(outcome, corrected_count=corrected_count, problems=problems, again_s=again_s)
        _remember_served(settings, inputs)
        _record(settings, inputs, outcome, faults, started_s)
        on_step("recorded")
    return outcome


def prepare_directories(settings: Settings) -> None:
    """Make the directories that we write to, where they are missing, and those of HAProxy's sockets, where we may.

    A node directory is missing after a reboot when it was in memory: it gets back the node files of HAProxy's servers,
    so that these stay until Serf says more. A roster that lacks them makes them failed, for the grace and the guard.

    Raises:
        SystemFault: One cannot be made.
    """
    is_new = not os.path.isdir(settings.nodes_dir)
    parents = (os.path.dirname(settings.wake_fifo), os.path.dirname(settings.config_path))
    for path in (settings.nodes_dir, settings.state_dir, *parents):
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise SystemFault(f"cannot make {path}: {error.strerror}; make it and give it to this user") from error
    for socket in (settings.master_socket, settings.runtime_socket):
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(socket), exist_ok=True)
    for status, member in read_served(settings).values() if is_new else ():
        nodes.record(settings.nodes_dir, status, member)


def _remember_served(settings: Settings, inputs: Inputs) -> None:
    """Keep the node files of all servers for a node directory that has to be made again."""
    write_served(settings, (inputs.files[server.name].line for server in inputs.pool.servers))


def _why_held(decided: pool.Pool) -> str:
    names = " ".join(list(decided.held)[:10]) + (
        f" and {len(decided.held) - 10} more" if len(decided.held) > 10 else ""
    )
    until = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(time.time() + max(decided.held.values())))
    how = f"HAProxy's health checks decide until {until} or `serf-haproxy release`"
    return f"too many servers were lost at once to be believed; {how}: {names}"


def _again_s(outcome: Outcome, inputs: Inputs) -> float | None:
    """Return when the next pass has something to do without any news; None for never."""
    drains_s = [time.time() - inputs.files[name].mtime_ns / 1e9 for name in inputs.pool.draining]
    times_s = [outcome.again_s, look_again_s(min(drains_s)) if drains_s else None, inputs.pool.changes_in_s]
    return min((time_s for time_s in times_s if time_s is not None), default=None)


def _record(
    settings: Settings,
    inputs: Inputs,
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
                for name, mtime_ns in from_roster.items()
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


def _problems(inputs: Inputs) -> tuple[str, ...]:
    refused = dict(inputs.roster.refused) if inputs.roster else inputs.record.refused
    return (
        *(f"node {name} is quarantined: {reason}" for name, reason in inputs.pool.quarantined.items()),
        *(f"node {name} is damped: it failed and came back too often" for name in inputs.pool.damped),
        *(f"node {name} is refused: {reason}" for name, reason in refused.items()),
        *(f"file {stray.name!a} in the node directory is ignored: {stray.reason}" for stray in inputs.strays),
    )
