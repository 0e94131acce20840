"""Servers that HAProxy runs and the published file lacks: they were added ahead of a pass, or wait for their end."""

from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.policy.snapshot import Running
from serf_haproxy.services import Key

_BACKUP = "backup"


def find_unpublished(goal: Layout, before: Layout, running: Running | None, runtime: Runtime) -> dict[Key, Line]:
    """Return the lines of those servers that HAProxy runs as a backup and should not, or the other way round.

    No file says how they were added, and `show servers state` does not tell backups.

    Args:
        goal: What should run.
        before: What the published file says so far.
        running: What runs.
        runtime: Tells of each server whether it is a backup. Where it does not answer, none differs.
    """
    servers = (running and running.servers) or {}
    unknown = [key for key in goal.servers.keys() - before.servers.keys() if key in servers]
    try:
        backups = runtime.read_backups([servers[key] for key in unknown]) if unknown else {}
    except HaproxyFault:
        return {}
    lines = {key: goal.servers[key] for key in unknown if key in backups}
    return {key: _change(line) for key, line in lines.items() if (_BACKUP in line.words) != backups[key]}


def _change(line: Line) -> Line:
    """Return the line of a backup for that of a server which is none, and the other way round."""
    others = tuple(word for word in line.words if word != _BACKUP)
    return line._replace(words=(*line.words, _BACKUP) if others == line.words else others)
