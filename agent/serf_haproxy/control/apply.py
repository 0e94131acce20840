"""From what HAProxy runs to what it should: at run time where that is enough, else by one graceful reload.

Nothing here is remembered: what runs is what HAProxy reports, before and after.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable

from serf_haproxy.config import render
from serf_haproxy.config.parse import Changes, Layout, plan, state_file
from serf_haproxy.control.outcome import NO_PAUSE, Outcome, Pause, Verdict, look_again_s
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy import config_file
from serf_haproxy.haproxy.runtime import Running, change, read_running
from serf_haproxy.settings import Settings

log = logging.getLogger("serf-haproxy")


def make_transition(
    settings: Settings,
    goal: render.Rendered,
    running: Running | None,
    on_step: Callable[[str], object],
    pause: Pause = NO_PAUSE,
) -> Outcome:
    """Bring HAProxy and the live file to a configuration.

    The candidate is checked after the runtime socket has been used: that takes HAProxy tens of milliseconds in which
    traffic would still be wrong, and only servers differ from what was checked before.

    Args:
        settings: The settings.
        goal: What should run.
        running: What runs; None when HAProxy does not answer.
        on_step: Told the name of each step that has ended.
        pause: For how long there must not be a reload.

    Raises:
        SystemFault: A file cannot be written, or HAProxy cannot be run to check the candidate.
    """
    live = config_file.read_live(settings)
    before = render.read_published(live or "")
    changes = _plan(goal, before, running)
    if live == goal.text and changes and not changes.commands:
        _delete_idle(settings, changes)
        again_s = _wait_s(goal, running) if changes.deletions else None
        return Outcome(Verdict.UNCHANGED, "HAProxy runs what it should", goal.digest, again_s=again_s)
    on_step("compared")
    is_confirmed = live is not None and running is not None and _runs(live, before, running)
    is_applied = changes is not None and _apply(settings, goal, running, changes)
    on_step("applied")
    if running and not is_applied and pause.concerns(goal.layout.rest):
        return _put_off(settings, goal, running, changes, pause)
    words = config_file.check(settings, goal.text)
    on_step("checked")
    if words is not None:
        config_file.reject(settings, words)
        return Outcome(Verdict.REJECTED, f"HAProxy refuses {_one_line(words)}", "")
    config_file.publish(settings, is_confirmed and live != goal.text)
    on_step("published")
    why = _why(goal, live, before, changes if is_applied else None)
    if is_applied:
        return Outcome(Verdict.APPLIED, why, goal.digest, again_s=look_again_s(0))
    servers, header = (running.servers, running.header) if running else (None, "")
    with config_file.handed_over(settings, state_file(goal.layout, before, servers, header)):
        outcome = _reload(settings, goal, running, why, on_step)
    if outcome.is_costly:
        _go_ahead(settings, goal, read_running(settings))
    return outcome


def runs_published(settings: Settings) -> bool:
    """Tell whether HAProxy runs the configuration that was last published."""
    live, running = config_file.read_live(settings), read_running(settings)
    return live is not None and running is not None and _runs(live, render.read_published(live), running)


def _plan(goal: render.Rendered, before: Layout, running: Running | None) -> Changes | None:
    """Return what the runtime socket has to change; None when it cannot make the difference, or need not be asked."""
    if running is None or render.rest_of(running.description) != goal.layout.rest:
        return None
    if running.servers is None:
        return Changes((), ()) if running.description == goal.description else None
    return plan(goal.layout, before, running.servers)


def _runs(live: str, before: Layout, running: Running) -> bool:
    """Tell whether HAProxy runs what the live file says: such a file is worth keeping."""
    description = render.description_of(live)
    if running.servers is None or not description:
        return bool(description) and running.description == description
    is_rest = render.rest_of(running.description) == render.rest_of(description)
    return is_rest and not plan(before, before, running.servers).commands


def _apply(settings: Settings, goal: render.Rendered, before: Running | None, changes: Changes) -> bool:
    """Change the servers over the runtime socket; return whether HAProxy then has what it should.

    Its answers are only logged: what counts is what it has afterwards. What it refuses (another version, an algorithm
    without dynamic servers, a keyword) takes a reload.
    """
    if not changes.commands:
        return True
    if before is None or not before.is_open:
        log.info("a reload is needed: the runtime socket does not answer")
        return False
    try:
        complaints = change(settings, changes.commands)
    except HaproxyFault as error:
        complaints = [str(error)]
    running = read_running(settings, before)
    if running is None or running.servers is None:
        return False
    rest = plan(goal.layout, goal.layout, running.servers)
    if rest.commands:
        log.info("%s", f"a reload is needed: {'; '.join(complaints[:3]) or 'HAProxy did not do as told'}")
    return not rest.commands


def _put_off(
    settings: Settings, goal: render.Rendered, running: Running, changes: Changes | None, pause: Pause
) -> Outcome:
    """Leave a reload for later; where more than servers will change then, the servers do so now."""
    if changes is None:
        _go_ahead(settings, goal, running)
    if pause.failure:
        return dataclasses.replace(pause.failure, has_reloaded=False, again_s=pause.left_s)
    why = f"servers changed as far as that goes without a reload, which follows in {pause.left_s:.1f} s"
    return Outcome(Verdict.APPLIED, why, "", again_s=pause.left_s)


def _go_ahead(settings: Settings, goal: render.Rendered, running: Running | None) -> None:
    """Let the servers of what runs be those of a configuration that HAProxy could not load, or cannot load yet."""
    if running and running.servers is not None and render.rest_of(running.description):  # else they are somebody else's
        _apply(settings, goal, running, plan(goal.layout, goal.layout, running.servers))


def _delete_idle(settings: Settings, changes: Changes) -> None:
    """Delete servers in maintenance; one that still has connections refuses, and is tried again."""
    with contextlib.suppress(HaproxyFault):
        change(settings, changes.deletions)


def _wait_s(goal: render.Rendered, running: Running | None) -> float:
    """Return when to try again to delete servers: their last connection may end at once, or in hours."""
    servers = (running and running.servers) or {}
    waited_s = [seen.unchanged_s for key, seen in servers.items() if key not in goal.layout.servers]
    return look_again_s(min(waited_s, default=0))


def _why(goal: render.Rendered, live: str | None, before: Layout, applied: Changes | None) -> str:
    if live != goal.text and not (applied and not applied.commands and before.servers == goal.layout.servers):
        return render.describe_change(before.servers, goal.layout.servers)
    if applied and applied.commands:
        return f"HAProxy's servers had drifted; {len(applied.commands)} commands put them right"
    return "the live file was put right" if applied else "HAProxy ran something else than the live file"


def _reload(
    settings: Settings,
    goal: render.Rendered,
    running: Running | None,
    why: str,
    on_step: Callable[[str], object],
) -> Outcome:
    if running is None:
        why = f"HAProxy did not answer; {why}"
    if running is None and config_file.confirm_start(settings, goal.description):
        return _read_back(settings, goal, f"{why}; HAProxy started with it")
    try:
        words = config_file.reload(settings)
        on_step("reloaded")
        if words is None and config_file.confirm(settings, goal.description):
            on_step("confirmed")
            return _read_back(settings, goal, why)
        words = words or f"no worker reports {goal.description} after {settings.reload_timeout_s:g} s"
    except HaproxyFault as error:
        if running is None:
            reason = f"{error}; the configuration is published for its start"
            return Outcome(Verdict.UNCONFIRMED, reason, "")
        words = str(error)
    restored = config_file.restore(settings)
    on_step("restored")
    after = "the one before is back in place" if restored else "there is none before it to go back to"
    reason = f"HAProxy did not take the new configuration: {_one_line(words)}; {after}"
    return Outcome(Verdict.UNCONFIRMED, reason, "", has_reloaded=True, is_costly=True, rest=goal.layout.rest)


def _read_back(settings: Settings, goal: render.Rendered, why: str) -> Outcome:
    """Compare what the new worker has with what it should have, and send it what is still different.

    Nothing should be; whatever there is, the next pass looks whether it has helped.
    """
    running = read_running(settings)
    servers = running.servers if running else None
    rest = plan(goal.layout, goal.layout, servers).commands if servers is not None else ()
    if not rest:
        return Outcome(Verdict.RELOADED, why, goal.digest, has_reloaded=True)
    try:
        change(settings, rest)
        then = f"{len(rest)} commands put them right"
    except HaproxyFault as error:
        then = str(error)
    why = f"{why}; the new worker's servers were not all as they should be: {then}"
    return Outcome(Verdict.RELOADED, why, goal.digest, has_reloaded=True, again_s=look_again_s(0))


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines())[:1000]
