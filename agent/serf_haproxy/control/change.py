"""Changing servers over the runtime socket, and reading back what came of it."""

import logging
import time
from collections.abc import Iterator, Mapping

from serf_haproxy.config.commands import take_longer_than_reload
from serf_haproxy.config.diff import Changes, diff, find_remade
from serf_haproxy.config.render import Config
from serf_haproxy.control.attempt import Attempt
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.policy.snapshot import Running, Seen
from serf_haproxy.services import Key

log = logging.getLogger("serf-haproxy")

_PAUSES_S = (0.02, 0.04, 0.08, 0.16, 0.32)  # most requests have ended by then; a reload does not wait for the others


def change_servers(attempt: Attempt, goal: Config, before: Running | None, changes: Changes) -> bool:
    """Change the servers over the runtime socket; return whether HAProxy then has what it should.

    HAProxy's answers are only logged: what counts is what it has afterwards. What it refuses (another version, an
    algorithm without dynamic servers, a keyword) takes a reload.
    """
    if not changes.commands:
        return not changes.fixed
    if before is None or not before.is_open:
        log.info("a reload is needed: the runtime socket does not answer")
        return False
    server_count = max(len(goal.layout.servers), len(before.servers or ()))
    if take_longer_than_reload(changes.commands, server_count) and not attempt.pause.failure:
        log.info("%s", f"a reload is sooner over than {len(changes.commands)} commands among {server_count} servers")
        return False
    complaints: list[str] = []
    for servers in _try(attempt, goal, before, changes, complaints):
        if not diff(goal.layout, goal.layout, servers, attempt.left).commands:
            return not changes.fixed
    log.info("%s", f"a reload is needed: {'; '.join(complaints[:3]) or 'HAProxy did not obey'}")
    return False


def _try(
    attempt: Attempt, goal: Config, before: Running, changes: Changes, complaints: list[str]
) -> Iterator[Mapping[Key, Seen]]:
    """Give the commands to HAProxy and yield the servers that it then has, again while some are made anew.

    A server whose line changes is removed and added again. HAProxy does not remove it while it has a connection: it is
    in maintenance meanwhile, and others of its section serve.
    """
    runtime, layout, earlier = attempt.edges.runtime, goal.layout, attempt.read_known()
    commands, seen = changes.commands, before.servers or {}
    tried: set[Key] = set()
    for pause_s in (*_PAUSES_S, 0.0):
        attempt.edges.ahead.note(before.description, commands, layout, attempt.read_before(), seen)
        try:
            complaints[:] = runtime.change(commands)
        except HaproxyFault as error:
            complaints[:] = [str(error)]
        running = runtime.read_running(before)
        if running is None or running.servers is None:
            return
        seen = running.servers
        yield seen
        gone, waiting = find_remade(layout, earlier, seen)
        if gone <= tried:
            if not waiting or not pause_s:
                return
            time.sleep(pause_s)
        tried |= gone
        mixed = layout._replace(servers=layout.servers | {key: earlier.servers[key] for key in waiting})
        commands = diff(layout, mixed, seen, attempt.left).commands
