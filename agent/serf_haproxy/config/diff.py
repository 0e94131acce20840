"""The difference between the servers that run and those that should, as commands for HAProxy's runtime socket. Pure."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.config.commands import OUT, WATCHERS, add, close_idle, delete, free, move, name_of, remove
from serf_haproxy.config.ids import is_id_of
from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.policy.snapshot import Seen
from serf_haproxy.services import DEFAULT_SERVICE, SUCCESSOR, Key


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
    wrong = sorted(find_wrong(goal, before, seen))
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
            commands += [*(remove(key) if running else ()), *add(goal, key, ids)]
            continue
        if is_other:  # to be added when it is gone: HAProxy does not remove it while it has a connection
            commands += [delete(key), *close_idle(key)] if running.is_maintained else remove(key)
            continue
        if running.endpoint != line.endpoint:
            ids -= {(key[0], running.id)}
            commands += move(goal, key, ids)
        else:
            commands += free(key, line, running, is_new=key not in before.servers)
        if running.weight != (weight := weigh(goal, before, key, running)):
            commands.append(f"set server {name_of(key)} weight {weight}")
    gone = _find_gone(goal, before, seen)
    commands += [command for key in gone if not seen[key].is_maintained for command in remove(key)]
    waiting = [key for key in gone if seen[key].is_maintained]
    deletions = tuple(map(delete, waiting))
    unused = tuple(key for key in waiting if not seen[key].connection_count)
    return Changes(tuple(commands), deletions, tuple(fixed), tuple(left_keys), unused)


def weigh(goal: Layout, before: Layout, key: Key, running: Seen) -> int:
    """Return the weight that a server should have now.

    With measured weights that is the part of its line's weight that it has; if the line's weight changes, the same part
    of the new one. Where a split shares the requests, servers of a version may have more than their lines' weights,
    and the loop of measured weights keeps the total; if its line's weight changes, a server begins with that.
    """
    most = goal.servers[key].weight
    if key[0] not in goal.measured or not most:
        return most
    former = before.servers.get(key, goal.servers[key]).weight
    if goal.measured[key[0]]:
        return running.weight if running.weight and former == most else most
    if not 0 < running.weight <= former:
        return most
    return running.weight if former == most else max(1, round(running.weight * most / former))


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
    return {key: sign(goal, key, seen.get(key)) for key in sorted(find_wrong(goal, goal, seen))}


def find_wrong(goal: Layout, before: Layout, seen: Mapping[Key, Seen]) -> list[Key]:
    """Return the servers that do not run as they should, or whose line is another one than before."""
    # A pass compares every server three times, and most of them do not differ.
    return [
        key
        for key, line in goal.servers.items()
        if (running := seen.get(key)) is None
        or running.endpoint != line.endpoint
        or (running.weight != line.weight and running.weight != weigh(goal, before, key, running))
        or running.is_maintained
        or running.is_drained
        or running.is_unwatched
        or (running.id != line.id and _has_other_id(goal, key, running))
        or (running.operation in OUT and WATCHERS.isdisjoint(line.words))
        or (before is not goal and before.servers.get(key, line).words != line.words)
    ]


def sign(goal: Layout, key: Key, running: Seen | None) -> str:
    """Return a signature of a server's difference: the same as long as its line, the rest and HAProxy's report are."""
    if running and weigh(goal, goal, key, running) == running.weight:
        running = running._replace(weight=goal.servers[key].weight)
    reported = running and (*running[: Seen._fields.index("operation")], running.operation in OUT, running.id)
    return hashlib.sha256(f"{goal.rest} {key} {goal.servers.get(key)} {reported}".encode()).hexdigest()[:16]


def explain(goal: Layout, key: Key, running: Seen | None) -> str:
    """Return what a server should be and what it is, in one line."""
    line = goal.servers[key]
    wanted = f"{line.endpoint} weight {line.weight}" + (f" id {line.id}" if line.id else "")
    if running is None:
        return f"{name_of(key)} is not there instead of {wanted}"
    states = {"maintenance": running.is_maintained, "drain": running.is_drained, "no checks": running.is_unwatched}
    states |= {"down": running.operation in OUT}
    state = "".join(f" ({name})" for name, is_so in states.items() if is_so)
    return f"{name_of(key)} is {running.endpoint} weight {running.weight} id {running.id}{state} instead of {wanted}"


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
        ("+" if key not in old else "-" if key not in new else "~") + (key[1] if is_one else name_of(key))
        for key in changed
    ]
    shown = " ".join(changes[:10]) + (f" and {len(changes) - 10} more" if len(changes) > 10 else "")
    return f"servers changed: {shown}" if changes else "the configuration changed"


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
