"""Commands for HAProxy's runtime socket that make, move, free and remove a server. Pure."""

from collections.abc import Collection

from serf_haproxy.config.ids import choose_id
from serf_haproxy.config.keywords import spell_out
from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.policy.snapshot import DOWN, STOPPING, Seen
from serf_haproxy.services import DEFAULT_SERVICE, Key
from serf_haproxy.system.network import split_endpoint

WATCHERS = frozenset(["check", "agent-check", "track"])  # the words by which HAProxy itself sets a server down and up
OUT = (DOWN, STOPPING)

# HAProxy looks for the server of a command among all others, some 30 ns for each, and does nothing else meanwhile.
_LOOKUP_COUNT = 50_000_000


def take_longer_than_reload(commands: Collection[str], server_count: int) -> bool:
    """Return whether a reload is sooner over: ten thousand new servers take a second then, and twenty at run time."""
    return len(commands) * server_count > _LOOKUP_COUNT


def add(goal: Layout, key: Key, ids: Collection[tuple[str, int]]) -> list[str]:
    """Add a server; `ids` are the ids in use in each section."""
    name, line = name_of(key), goal.servers[key]
    number = line.id or choose_id((DEFAULT_SERVICE, key[1]))
    # Another server may run with the id that the file now gives to this one, which matters only to some algorithms.
    with_id = "" if (key[0], number) in ids and key[0] not in goal.by_id else f" id {number}"
    words = " ".join(spell_out(line.words))
    add = f"add server {name} {line.endpoint} weight {line.weight}{with_id} {words}"
    # HAProxy before 3.0 makes the cookie of an added server only then.
    cookie = [f"enable dynamic-cookie backend {key[0]}"] if key[0] in goal.cookied else []
    return [add, *([f"enable health {name}"] if "check" in line.words else ()), *cookie, *_start(key, line)]


def move(goal: Layout, key: Key, ids: Collection[tuple[str, int]]) -> list[str]:
    """Give a server another address by making it anew: its first check then takes milliseconds.

    A server that still has connections cannot be removed. It is moved in place, and its next check may take a second.
    """
    address, port = split_endpoint(goal.servers[key].endpoint)
    first, *start = add(goal, key, ids)
    return [*remove(key), first, f"set server {name_of(key)} addr {address} port {port}", *start]


def free(key: Key, line: Line, running: Seen, *, is_new: bool) -> list[str]:
    """Put a server and its health checks back into service.

    A server that serves is not set down for that: its clients would lose it. Its health checks soon
    show its true state; they also correct a server that an administrator has forced up or down.
    """
    name = name_of(key)
    commands = [f"enable health {name}"] if running.is_unwatched else []
    if running.is_maintained or (running.is_drained and is_new):  # a start that was interrupted is made again
        return [*commands, *_start(key, line)]
    if running.is_drained:
        commands.append(f"set server {name} state ready")
    if running.operation in OUT and not WATCHERS.intersection(line.words):
        commands.append(f"set server {name} health up")
    return commands


def _start(key: Key, line: Line) -> list[str]:
    """Let a server get requests; one with health checks starts as down until its first good check."""
    ready = f"set server {name_of(key)} state ready"
    if "check" not in line.words:
        return [ready]
    return [f"set server {name_of(key)} state drain", f"set server {name_of(key)} health down", ready]


def remove(key: Key) -> list[str]:
    """Take a server out: its requests may finish; an idle server goes at once."""
    return [f"set server {name_of(key)} state maint", delete(key)]


def delete(key: Key) -> str:
    """Return the command that deletes a server; HAProxy refuses it for one with connections."""
    return f"del server {name_of(key)}"


def close_idle(key: Key) -> list[str]:
    """Begin a server's maintenance anew, which closes its idle connections.

    HAProxy 2.6 deletes no server with idle connections. Those whose request ended during maintenance it closes by half
    every five seconds. Between the two commands a sticky client may reach the server, and nothing else does.
    """
    return [f"set server {name_of(key)} state drain", f"set server {name_of(key)} state maint"]


def name_of(key: Key) -> str:
    """Return the name of a server in a command."""
    return "/".join(key)
