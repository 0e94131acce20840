"""Servers that HAProxy runs otherwise than the published file says: they were given to it ahead of that file."""

from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.control.ahead import Ahead
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.policy.snapshot import Running
from serf_haproxy.services import Key

_BACKUP = "backup"


def find_unpublished(
    goal: Layout, before: Layout, running: Running | None, ahead: Ahead, runtime: Runtime
) -> dict[Key, Line]:
    """Return the lines of those servers that run with other words than they should, which the published file lacks.

    Where nothing says what HAProxy was given, it tells at least which servers are backups.

    Args:
        goal: What should run.
        before: What the published file says so far.
        running: What runs.
        ahead: Says what HAProxy was given.
        runtime: Tells of each server whether it is a backup. Where it does not answer, none differs.
    """
    if running is None or not running.servers:
        return {}
    servers = running.servers
    given = {key: words for key, words in ahead.read(running.description).items() if key in servers}
    found = {}
    for key in given.keys() & goal.servers.keys():
        line = goal.servers[key]
        if others := sorted(given[key] - {line.words}):
            found[key] = before.servers.get(key, line)._replace(words=others[0])
    unknown = [key for key in goal.servers.keys() - before.servers.keys() if key in servers and key not in given]
    try:
        backups = runtime.read_backups([servers[key] for key in unknown]) if unknown else {}
    except HaproxyFault:
        return found
    lines = {key: goal.servers[key] for key in unknown if key in backups}
    return found | {key: _change(line) for key, line in lines.items() if (_BACKUP in line.words) != backups[key]}


def _change(line: Line) -> Line:
    """Return the line of a backup for that of a server which is none, and the other way round."""
    others = tuple(word for word in line.words if word != _BACKUP)
    return line._replace(words=(*line.words, _BACKUP) if others == line.words else others)
