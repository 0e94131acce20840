"""From what HAProxy runs to what it should: at run time where that is enough, otherwise by one graceful reload.

What runs is what HAProxy reports, before and after; only what it does not tell is noted (`control.ahead`).
"""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping

from serf_haproxy.config import fingerprint
from serf_haproxy.config.diff import Changes, describe, diff, explain, find_differences
from serf_haproxy.config.drift import Drift, list_drifts
from serf_haproxy.config.parse import Layout, Parser
from serf_haproxy.config.render import Config
from serf_haproxy.config.state_file import find_decided, format_state
from serf_haproxy.control.attempt import Attempt
from serf_haproxy.control.change import change_servers
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.outcome import FROZEN, NO_PAUSE, Condition, Outcome, Pause, Verdict, look_again_s
from serf_haproxy.control.unpublished import find_unpublished
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.master import ABSENT_S
from serf_haproxy.policy.snapshot import DOWN, Running, Seen
from serf_haproxy.services import Key

log = logging.getLogger("serf-haproxy")


def apply(attempt: Attempt, goal: Config) -> Outcome:
    """Bring HAProxy and the live file to a configuration.

    The candidate is checked after the runtime socket was used: the check takes HAProxy tens of milliseconds, in which
    traffic would still be wrong, and only servers differ from what was checked before.

    Raises:
        SystemFault: A file cannot be written, or HAProxy cannot be run to check the candidate.
    """
    edges, running, live = attempt.edges, attempt.running, attempt.live
    config_file, on_step = edges.config_file, attempt.on_step
    if running is None and attempt.must_wait():
        return _wait(attempt)
    before = attempt.read_before()
    attempt = attempt._replace(unpublished=find_unpublished(goal.layout, before, running, edges.ahead, edges.runtime))
    known = attempt.read_known()
    changes = find_changes(goal, known, running, attempt.left)
    left = {key: attempt.left[key] for key in changes.left} if changes else {}
    if live == goal.text and changes and not changes.commands and not changes.fixed and not attempt.ordered:
        _delete_idle(attempt, changes)
        again_s = _wait_s(goal, running) if changes.deletions else None
        return Outcome(Verdict.UNCHANGED, "HAProxy runs what it should", goal.digest, again_s=again_s, left=left)
    on_step("compared")
    is_confirmed = (
        live is not None and running is not None and _runs(live, before, running, attempt.left, attempt.hastened)
    )
    drifts = _list_drifts(goal, known, running, is_settled=live == goal.text) if changes and changes.commands else ()
    is_applied = changes is not None and change_servers(attempt, goal, running, changes) and not attempt.ordered
    on_step("applied")
    if running and not is_applied and (pause := attempt.find_pause(goal.layout.rest)) != NO_PAUSE:
        return _put_off(attempt, goal, running, changes, pause)
    words = config_file.check(goal.text)
    on_step("checked")
    if words is not None:
        config_file.reject(words)
        return Outcome(Verdict.REJECTED, f"HAProxy refuses {_join_lines(words)}", "")
    config_file.publish(is_confirmed and live != goal.text)
    on_step("published")
    why = attempt.ordered or _explain(goal, live, before, changes if is_applied else None)
    if is_applied:
        edges.ahead.keep(running, goal.layout, before)
        return Outcome(Verdict.APPLIED, why, goal.digest, again_s=look_again_s(0), left=left, drifts=drifts)
    servers, header = (running.servers, running.header) if running else (None, "")
    with config_file.handing_over(format_state(goal, attempt.list_decided(), servers, header, before)):
        outcome = _reload(attempt, goal, why)
    if outcome.is_costly:
        _go_ahead(attempt, goal, edges.runtime.read_running())
    return dataclasses.replace(outcome, drifts=drifts) if outcome.is_in_force else outcome


def find_changes(
    goal: Config, before: Layout, running: Running | None, left: Mapping[Key, str] | None = None
) -> Changes | None:
    """Return what the runtime socket has to change; None when only a reload can make the difference."""
    if running is None or fingerprint.rest_of(running.description) != goal.layout.rest:
        return None
    if running.servers is None:
        return Changes((), ()) if running.description == goal.description else None
    return diff(goal.layout, before, running.servers, left)


def runs_published(edges: Edges) -> bool:
    """Return whether HAProxy runs the configuration that was last published."""
    live, running = edges.config_file.read_live(), edges.runtime.read_running()
    if live is None or running is None:
        return False
    before = Parser().read_published(live)._replace(measured=edges.state.read_record().measured)
    return _runs(live, before, running)


def _list_drifts(goal: Config, before: Layout, running: Running | None, *, is_settled: bool) -> tuple[Drift, ...]:
    servers = running.servers if running else None
    return () if servers is None else list_drifts(goal.layout, before, servers, is_settled=is_settled)


def _runs(
    live: str,
    before: Layout,
    running: Running,
    left: Mapping[Key, str] | None = None,
    hastened: frozenset[Key] = frozenset(),
) -> bool:
    """Return whether HAProxy runs what the live file says, but for servers ahead of it: it is worth keeping."""
    description, servers = fingerprint.description_of(live), running.servers
    if servers is None or not description:
        return bool(description) and running.description == description
    if hastened:
        before = before._replace(servers={key: line for key, line in before.servers.items() if key not in hastened})
        servers = {key: seen for key, seen in servers.items() if key not in hastened}
    is_rest = fingerprint.rest_of(running.description) == fingerprint.rest_of(description)
    changes = diff(before, before, servers, left)
    return is_rest and not changes.commands and not changes.fixed


def _put_off(attempt: Attempt, goal: Config, running: Running, changes: Changes | None, pause: Pause) -> Outcome:
    """Leave a reload for later; if it will change more than servers, change the servers now."""
    if changes is None:
        _go_ahead(attempt, goal, running)
    if pause.failure:
        return dataclasses.replace(pause.failure, has_reloaded=False, again_s=pause.left_s)
    why = f"servers changed as far as possible without a reload, which follows in {pause.left_s:.1f} s"
    return Outcome(Verdict.APPLIED, why, "", again_s=pause.left_s)


def _go_ahead(attempt: Attempt, goal: Config, running: Running | None) -> None:
    """Change the servers of what runs to those of a configuration that HAProxy cannot load, or not yet."""
    if running and running.servers is not None and fingerprint.rest_of(running.description):  # it is ours
        change_servers(attempt, goal, running, diff(goal.layout, goal.layout, running.servers, attempt.left))


def _delete_idle(attempt: Attempt, changes: Changes) -> None:
    """Delete servers in maintenance; HAProxy refuses one that still has connections, and a later pass tries again."""
    with contextlib.suppress(HaproxyFault):
        attempt.edges.runtime.change(attempt.list_deletions(changes))


def _wait_s(goal: Config, running: Running | None) -> float:
    """Return after how many seconds to try again to delete servers: a last connection may end at once, or in hours."""
    servers = (running and running.servers) or {}
    waited_s = [seen.unchanged_s for key, seen in servers.items() if key not in goal.layout.servers]
    return look_again_s(min(waited_s, default=0))


def _explain(goal: Config, live: str | None, before: Layout, applied: Changes | None) -> str:
    if live != goal.text and not (applied and not applied.commands and before.servers == goal.layout.servers):
        return describe({**before.servers, **before.fixed}, {**goal.layout.servers, **goal.layout.fixed})
    if applied and applied.commands:
        return f"HAProxy's servers had drifted; {len(applied.commands)} commands corrected them"
    return "the live file was corrected" if applied else "HAProxy ran something else than the live file"


def _wait(attempt: Attempt) -> Outcome:
    """Leave all as it is while the worker is frozen: it can neither hand its listeners over nor change its servers."""
    limit = f"{attempt.patience.limit_s:g} s after the first such pass"
    reason = f"HAProxy's worker does not answer; changes wait until it does, or {limit}"
    return Outcome(Verdict.UNCONFIRMED, reason, "", conditions=(Condition(FROZEN, reason),))


def _reload(attempt: Attempt, goal: Config, why: str) -> Outcome:
    edges, running = attempt.edges, attempt.running
    timeout_s = edges.master.timeout_s
    if running is None:
        why = f"HAProxy did not answer; {why}"
        if edges.runtime.confirm(goal.description, ABSENT_S):
            return _read_back(attempt, goal, f"{why}; HAProxy started with it")
    if attempt.must_wait():
        edges.config_file.restore()
        return _wait(attempt)
    try:
        words = edges.master.reload()
        attempt.on_step("reloaded")
        if words is None and edges.runtime.confirm(goal.description, timeout_s):
            attempt.on_step("confirmed")
            return _read_back(attempt, goal, why)
        words = words or f"no worker reports {goal.description} after {timeout_s:g} s"
    except HaproxyFault as error:
        if running is None:
            reason = f"{error}; the configuration is published for its start"
            return Outcome(Verdict.UNCONFIRMED, reason, "")
        words = str(error)
    is_restored = edges.config_file.restore()
    attempt.on_step("restored")
    after = "the previous one was restored" if is_restored else "there is no previous one to restore"
    reason = f"HAProxy did not confirm the new configuration: {_join_lines(words)}; {after}"
    return Outcome(Verdict.UNCONFIRMED, reason, "", has_reloaded=True, is_costly=True, rest=goal.layout.rest)


def _read_back(attempt: Attempt, goal: Config, why: str) -> Outcome:
    """Compare what the new worker has with what it should have, and correct it.

    There should be no difference; if there is one, the next pass verifies the correction. What neither the reload nor
    the correction has changed is left alone from now on: another reload would not change it either.
    """
    runtime = attempt.edges.runtime
    running = runtime.read_running()
    servers = running.servers if running else None
    outcome = Outcome(Verdict.RELOADED, why, goal.digest, has_reloaded=True, left={})
    attempt.edges.ahead.forget()
    if servers is None:
        return outcome
    differences = find_differences(goal.layout, servers)
    commands = diff(goal.layout, goal.layout, servers).commands + _raise(attempt, goal, servers)
    if not differences and not commands:
        return outcome
    again_s = look_again_s(0)
    try:
        runtime.change(commands)
        then = f"{len(commands)} commands corrected them"
        after = runtime.read_running(running)
        left = find_differences(goal.layout, after.servers) if after and after.servers is not None else {}
    except HaproxyFault as error:
        then, left = str(error), differences
    for key in left.keys() - attempt.left.keys():
        said = explain(goal.layout, key, servers.get(key))
        log.warning("%s", f"left alone until something changes, since a reload has not ended it: {said}")
    why = f"{why}; the new worker's servers were not all as they should be: {then}"
    return dataclasses.replace(outcome, reason=why, again_s=again_s, left=left)


def _raise(attempt: Attempt, goal: Config, servers: Mapping[Key, Seen]) -> tuple[str, ...]:
    """Return commands for new servers that started as down, and that no health check would ever raise.

    They are those of which only HAProxy knows what their lines say (`config.state_file`).
    """
    decided = attempt.list_decided()
    return tuple(
        f"set server {'/'.join(key)} health up"
        for key, seen in servers.items()
        if find_decided(decided, key)
        and not (goal.layout.servers.get(key) or goal.layout.fixed.get(key))
        and seen.operation == DOWN
        and not seen.is_checked
        and not seen.is_maintained
    )


def _join_lines(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines())[:1000]
