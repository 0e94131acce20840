"""The difference between the servers that run and those that should, as commands for HAProxy's runtime socket. Pure."""

import hashlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

from serf_haproxy.config.ids import choose_id, is_id_of
from serf_haproxy.config.keywords import spell_out
from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.policy.snapshot import DOWN, STOPPING, Seen
from serf_haproxy.services import DEFAULT_SERVICE, SUCCESSOR, Key
from serf_haproxy.system.network import split_endpoint

_WATCHERS = frozenset(["check", "agent-check", "track"])  # the words by which HAProxy itself sets a server down and up
_OUT = (DOWN, STOPPING)


class Changes(NamedTuple):
    """What turns the servers that run into those that should.

    Attributes:
        commands: For the runtime socket; empty when nothing differs that it can change.
        deletions: Further commands, for servers in maintenance that wait for their last connection.
        fixed: Servers with a difference that only a reload can end.
        left: Servers whose difference is left alone, because a reload has not ended it.
        unused: Those of the servers in maintenance whose requests have all ended.
    """

    commands: tuple[str, ...]
    deletions: tuple[str, ...]
    fixed: tuple[Key, ...] = ()
    left: tuple[Key, ...] = ()
    unused: tuple[Key, ...] = ()


def diff(goal: Layout, before: Layout, seen: Mapping[Key, Seen], left: Mapping[Key, str] | None = None) -> Changes:
    """Compare the servers that should run with those that do.

    Args:
        goal: What should run.
        before: What the published file says so far: HAProxy shows only endpoint, weight and id of a server's line.
        seen: What runs.
        left: Servers that are left alone, with the signature of their difference (`sign`).
    """
    commands: list[str] = []
    fixed, left_keys = [], []
    wrong = sorted(_find_wrong(goal, before, seen))
    ids = {(section, one.id) for (section, _), one in seen.items()} if wrong else set()
    for key in wrong:
        line, running = goal.servers[key], seen.get(key)
        if left and key in left and left[key] == sign(goal, key, running):
            left_keys.append(key)
            continue
        is_other = before.servers.get(key, line).words != line.words
        is_idle = running is not None and (running.is_maintained or (running.is_drained and key not in before.servers))
        has_other_id = running is not None and _has_other_id(goal, key, running)
        if has_other_id and not is_idle:
            fixed.append(key)  # its clients would lose it while it is made anew
            continue
        if is_other and running and running.is_serving and running.connection_count and _is_lonely(key, seen):
            fixed.append(key)  # requests would find no server until its last connection has ended
            continue
        if running is None or has_other_id:
            ids -= {(key[0], running.id)} if running else set()
            commands += [*(_remove(key) if running else ()), *_add(goal, key, ids)]
            continue
        if is_other:  # to be added when it is gone: HAProxy does not remove it while it has a connection
            commands += [_delete(key), *close_idle(key)] if running.is_maintained else _remove(key)
            continue
        if running.endpoint != line.endpoint:
            ids -= {(key[0], running.id)}
            commands += _move(goal, key, ids)
        else:
            commands += _free(key, line, running, is_new=key not in before.servers)
        if running.weight != line.weight:
            commands.append(f"set server {_name(key)} weight {line.weight}")
    gone = _find_gone(goal, before, seen)
    commands += [command for key in gone if not seen[key].is_maintained for command in _remove(key)]
    waiting = [key for key in gone if seen[key].is_maintained]
    deletions = tuple(map(_delete, waiting))
    unused = tuple(key for key in waiting if not seen[key].connection_count)
    return Changes(tuple(commands), deletions, tuple(fixed), tuple(left_keys), unused)


def find_remade(goal: Layout, before: Layout, seen: Mapping[Key, Seen]) -> tuple[set[Key], set[Key]]:
    """Return the servers with another line than before that are gone, so that they can be added, and those that wait.

    These are in maintenance until their last connection has ended. While no other server of the section is up, there
    are none: a reload is sooner over.
    """
    remade = {key for key, line in before.servers.items() if goal.servers.get(key, line).words != line.words}
    waiting = {key for key in remade if key in seen and seen[key].is_maintained and not _is_lonely(key, seen)}
    return remade - seen.keys(), waiting


def find_differences(goal: Layout, seen: Mapping[Key, Seen]) -> dict[Key, str]:
    """Return the servers that do not run as they should, each with the signature of its difference."""
    return {key: sign(goal, key, seen.get(key)) for key in sorted(_find_wrong(goal, goal, seen))}


def sign(goal: Layout, key: Key, running: Seen | None) -> str:
    """Return a signature of a server's difference: the same as long as its line, the rest and HAProxy's report are."""
    reported = running and (*running[: Seen._fields.index("operation")], running.operation in _OUT, running.id)
    return hashlib.sha256(f"{goal.rest} {key} {goal.servers.get(key)} {reported}".encode()).hexdigest()[:16]


def explain(goal: Layout, key: Key, running: Seen | None) -> str:
    """Return what a server should be and what it is, in one line."""
    line = goal.servers[key]
    wanted = f"{line.endpoint} weight {line.weight}" + (f" id {line.id}" if line.id else "")
    if running is None:
        return f"{_name(key)} is not there instead of {wanted}"
    states = {"maintenance": running.is_maintained, "drain": running.is_drained, "no checks": running.is_unwatched}
    states |= {"down": running.operation in _OUT}
    state = "".join(f" ({name})" for name, is_so in states.items() if is_so)
    return f"{_name(key)} is {running.endpoint} weight {running.weight} id {running.id}{state} instead of {wanted}"


def _find_wrong(goal: Layout, before: Layout, seen: Mapping[Key, Seen]) -> list[Key]:
    # A pass compares every server three times, and most of them do not differ.
    return [
        key
        for key, line in goal.servers.items()
        if (running := seen.get(key)) is None
        or running.endpoint != line.endpoint
        or running.weight != line.weight
        or running.is_maintained
        or running.is_drained
        or running.is_unwatched
        or (running.id != line.id and _has_other_id(goal, key, running))
        or (running.operation in _OUT and _WATCHERS.isdisjoint(line.words))
        or (before is not goal and before.servers.get(key, line).words != line.words)
    ]


def _find_gone(goal: Layout, before: Layout, seen: Mapping[Key, Seen]) -> list[Key]:
    """Return the servers that run and should not.

    In a section of ours, that is every server that is not in the file. Where the administrator has servers too, it is
    only those that we have made: they were in the file, or have an id of ours.
    """
    ours = {section for section, _ in goal.servers} - {section for section, _ in goal.fixed}
    return sorted(
        key
        for key, running in seen.items()
        if key not in goal.servers
        and key[0] in goal.sections
        and key not in goal.fixed
        and (key[0] in ours or key in before.servers or _has_our_id(key, running))
    )


def describe(old: Mapping[Key, Line | None], new: Mapping[Key, Line | None]) -> str:
    """Return one sentence about the servers that are new (+), gone (-) or different (~)."""
    keys = [*(key for key, line in new.items() if key not in old or old[key] != line), *(old.keys() - new.keys())]
    changed = sorted(key for key in keys if key[0] != SUCCESSOR)
    is_one = len({section for section, _ in (*old, *new)} - {SUCCESSOR}) < 2
    changes = [
        ("+" if key not in old else "-" if key not in new else "~") + (key[1] if is_one else _name(key))
        for key in changed
    ]
    shown = " ".join(changes[:10]) + (f" and {len(changes) - 10} more" if len(changes) > 10 else "")
    return f"servers changed: {shown}" if changes else "the configuration changed"


def _add(goal: Layout, key: Key, ids: Collection[tuple[str, int]]) -> list[str]:
    """Add a server; `ids` are the ids in use in each section."""
    name, line = _name(key), goal.servers[key]
    number = line.id or choose_id((DEFAULT_SERVICE, key[1]))
    # Another server may run with the id that the file now gives to this one, which matters only to some algorithms.
    with_id = "" if (key[0], number) in ids and key[0] not in goal.by_id else f" id {number}"
    words = " ".join(spell_out(line.words))
    add = f"add server {name} {line.endpoint} weight {line.weight}{with_id} {words}"
    # HAProxy before 3.0 makes the cookie of an added server only then.
    cookie = [f"enable dynamic-cookie backend {key[0]}"] if key[0] in goal.cookied else []
    return [add, *([f"enable health {name}"] if "check" in line.words else ()), *cookie, *_start(key, line)]


def _move(goal: Layout, key: Key, ids: Collection[tuple[str, int]]) -> list[str]:
    """Give a server another address by making it anew: its first check then takes milliseconds.

    A server that still has connections cannot be removed. It is moved in place, and its next check may take a second.
    """
    address, port = split_endpoint(goal.servers[key].endpoint)
    add, *start = _add(goal, key, ids)
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
    return [f"set server {_name(key)} state maint", _delete(key)]


def _delete(key: Key) -> str:
    return f"del server {_name(key)}"


def close_idle(key: Key) -> list[str]:
    """Begin a server's maintenance anew, which closes its idle connections.

    HAProxy 2.6 deletes no server with idle connections. Those whose request ended during maintenance it closes by half
    every five seconds. Between the two commands a sticky client may reach the server, and nothing else does.
    """
    return [f"set server {_name(key)} state drain", f"set server {_name(key)} state maint"]


def _has_our_id(key: Key, running: Seen) -> bool:
    """Return whether a server has an id that we give to its name; without any id it is taken for ours.

    The servers of the default service may be in sections of any name.
    """
    return not running.id or any(is_id_of((service, key[1]), running.id) for service in (DEFAULT_SERVICE, key[0]))


def _has_other_id(goal: Layout, key: Key, running: Seen) -> bool:
    """Return whether a server has another id than its line where that matters; 0 is none, or one not reported."""
    number = goal.servers[key].id
    return bool(number and running.id) and number != running.id and key[0] in goal.by_id


def _is_lonely(key: Key, seen: Mapping[Key, Seen]) -> bool:
    """Return whether no other server of the section gets requests."""
    return not any(
        other != key and other[0] == key[0] and one.is_serving and one.weight and not one.is_drained
        for other, one in seen.items()
    )


def _name(key: Key) -> str:
    return "/".join(key)
