"""The difference between the servers that run and those that should, as commands for HAProxy's runtime socket. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.policy.snapshot import DOWN, STOPPING, Seen
from serf_haproxy.services import Key
from serf_haproxy.system.network import split_endpoint

_WATCHERS = frozenset(["check", "agent-check", "track"])  # the words by which HAProxy itself sets a server down and up
_OUT = (DOWN, STOPPING)


class Changes(NamedTuple):
    """What turns the servers that run into those that should.

    Attributes:
        commands: For the runtime socket; empty when nothing differs.
        deletions: Further commands, for servers in maintenance that wait for their last connection.
    """

    commands: tuple[str, ...]
    deletions: tuple[str, ...]


def diff(goal: Layout, before: Layout, seen: Mapping[Key, Seen]) -> Changes:
    """Compare the servers that should run with those that do.

    Args:
        goal: What should run.
        before: What the published file says so far: HAProxy shows only endpoint and weight of a server's line.
        seen: What runs.
    """
    commands: list[str] = []
    # A pass compares every server three times, and most of them do not differ.
    wrong = [
        key
        for key, line in goal.servers.items()
        if (running := seen.get(key)) is None
        or running.endpoint != line.endpoint
        or running.weight != line.weight
        or running.is_maintained
        or running.is_drained
        or running.is_unwatched
        or (running.operation in _OUT and _WATCHERS.isdisjoint(line.words))
        or (before is not goal and before.servers.get(key, line).words != line.words)
    ]
    for key in sorted(wrong):
        line, running = goal.servers[key], seen.get(key)
        is_other = before.servers.get(key, line).words != line.words
        if running is None or is_other:
            commands += [*(_remove(key) if running else ()), *_add(key, line)]
            continue
        if running.endpoint != line.endpoint:
            commands += _move(key, line)
        else:
            commands += _free(key, line, running, is_new=key not in before.servers)
        if running.weight != line.weight:
            commands.append(f"set server {_name(key)} weight {line.weight}")
    gone = sorted(key for key in seen if key[0] in goal.sections and key not in goal.servers)
    commands += [command for key in gone if not seen[key].is_maintained for command in _remove(key)]
    return Changes(tuple(commands), tuple(f"del server {_name(key)}" for key in gone if seen[key].is_maintained))


def describe(old: Mapping[Key, Line], new: Mapping[Key, Line]) -> str:
    """Return one sentence about the servers that are new (+), gone (-) or different (~)."""
    changed = sorted([*(key for key, line in new.items() if old.get(key) != line), *(old.keys() - new.keys())])
    changes = [("+" if key not in old else "-" if key not in new else "~") + key[1] for key in changed]
    shown = " ".join(changes[:10]) + (f" and {len(changes) - 10} more" if len(changes) > 10 else "")
    return f"servers changed: {shown}" if changes else "the configuration changed"


def _add(key: Key, line: Line) -> list[str]:
    name = _name(key)
    add = f"add server {name} {line.endpoint} weight {line.weight} {' '.join(line.words)}".rstrip()
    return [add, *([f"enable health {name}"] if "check" in line.words else ()), *_start(key, line)]


def _move(key: Key, line: Line) -> list[str]:
    """Give a server another address by making it anew: its first check then takes milliseconds.

    A server that still has connections cannot be removed. It is moved in place, and its next check may take a second.
    """
    address, port = split_endpoint(line.endpoint)
    add, *start = _add(key, line)
    return [*_remove(key), add, f"set server {_name(key)} addr {address} port {port}", *start]


def _free(key: Key, line: Line, running: Seen, *, is_new: bool) -> list[str]:
    """Put a server and its health checks back into service.

    A server that serves is not set down for that: its clients would lose it. Its health checks soon
    show its true state; they also correct a server that an administrator has forced up or down.
    """
    name = _name(key)
    commands = [f"enable health {name}"] if running.is_unwatched else []
    if running.is_maintained or (running.is_drained and is_new):  # a start that was interrupted is made again
        return [*commands, *_start(key, line)]
    if running.is_drained:
        commands.append(f"set server {name} state ready")
    if running.operation in _OUT and not _WATCHERS.intersection(line.words):
        commands.append(f"set server {name} health up")
    return commands


def _start(key: Key, line: Line) -> list[str]:
    """Let a server get requests; one with health checks starts as down until its first good check."""
    ready = f"set server {_name(key)} state ready"
    if "check" not in line.words:
        return [ready]
    return [f"set server {_name(key)} state drain", f"set server {_name(key)} health down", ready]


def _remove(key: Key) -> list[str]:
    """Take a server out: its requests may finish; an idle server goes at once."""
    return [f"set server {_name(key)} state maint", f"del server {_name(key)}"]


def _name(key: Key) -> str:
    return "/".join(key)
