"""How often HAProxy checks the health of each server, so that all checks together stay below a limit. Pure.

A server that has just gone down, or is new, is checked every 50 ms while there are few such servers, so that it is
soon in use. While it stays down it is checked less often by steps: invented members must not make HAProxy connect to
a host for ever. HAProxy cannot change the interval of a server's checks, so the server is made anew, which costs
nothing while it is down and has no connection. A server that is up keeps the words that it has. All servers that are
up share one interval, which grows with their number; HAProxy takes it by a reload.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.policy.server import FASTEST_MS, Server
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import Key

_STEPS = ((30.0, 3), (300.0, 7))  # down for this many seconds: every 50 ms * 2**3, every 50 ms * 2**7 at most
EXPONENT_MAX = 20  # 14 hours for a server that is down; HAProxy allows 24 days
_SLACK_S = 600.0  # the interval of servers that are up becomes shorter at most this often


class Pace(NamedTuple):
    """How often a server is checked while it is down.

    Attributes:
        exponent: Every 50 ms * 2**exponent.
        down_ns: Since when it is down, or since it was last heard of while it was, nanoseconds since the epoch; 0 while
            it is up.
    """

    exponent: int
    down_ns: int


Paced = tuple[Server, Server]  # a server as it was decided, and with its intervals

_UNHURRIED = Pace(0, 0)


class Checks(NamedTuple):
    """The health checks of a service.

    Attributes:
        interval_s: The interval for servers that are up, a power of two, seconds.
        since_ns: Since when, nanoseconds since the epoch.
        paces: Servers that are down, or were and keep the words of that time.
    """

    interval_s: int = 1
    since_ns: int = 0
    paces: Mapping[Key, Pace] = {}


class Sight(NamedTuple):
    """What a decision on paces looks at.

    Attributes:
        known: Servers that HAProxy has; None when that is not known.
        down: Those of them that it considers down; None when HAProxy was not asked or did not answer.
        files: Node files by name: a server whose node is heard of again may be up soon.
        rate: The most checks a second, of all servers together.
        now_ns: The time, nanoseconds since the epoch.
        proven_count: How many servers have been up: only these lengthen the interval of servers that are up.
    """

    known: frozenset[Key] | None
    down: frozenset[Key] | None
    files: Mapping[str, NodeFile]
    rate: float
    now_ns: int
    proven_count: int


def set_paces(
    servers: tuple[Server, ...], before: Checks, sight: Sight, paced: dict[Key, Paced] | None = None
) -> tuple[tuple[Server, ...], Checks]:
    """Return the servers with their intervals, and what to remember.

    Half of the checks are for servers that are up, half for the others.

    Args:
        servers: The servers.
        before: How often servers were checked as of the last decision.
        sight: What else counts.
        paced: The owner's memo of servers with their intervals, which is brought up to date: where nothing is new, a
            server is the same object from decision to decision.
    """
    paces = _find_paces(servers, before.paces, sight)
    interval_s, since_ns = _find_interval(before, sight)
    if interval_s != before.interval_s:  # the reload gives all servers other words: those that are up forget their pace
        paces = {key: pace for key, pace in paces.items() if pace.down_ns}
    if interval_s == 1 and not any(pace.exponent for pace in paces.values()):  # most often
        return servers, Checks(interval_s, since_ns, paces)
    slow = {key: FASTEST_MS * 2**pace.exponent for key, pace in paces.items() if pace.exponent}
    known = {} if paced is None else paced
    if len(known) > 2 * len(servers):
        known.clear()
    checked = tuple([_set_pace(server, interval_s, slow, known) for server in servers])
    return checked, Checks(interval_s, since_ns, paces)


def find_first_ms(before: Checks, new_count: int, rate: float) -> int:
    """Return how often new servers are checked until they are up, milliseconds.

    Args:
        before: How often servers were checked as of the last decision.
        new_count: How many are new.
        rate: The most checks a second, of all servers together.
    """
    out_count = new_count + sum(1 for pace in before.paces.values() if pace.down_ns)
    return FASTEST_MS << _find_exponent(out_count * 1000 / FASTEST_MS, rate / 2)


def _set_pace(server: Server, interval_s: int, slow: Mapping[Key, int], known: dict[Key, Paced]) -> Server:
    key = server.service, server.name
    down_ms = slow.get(key, FASTEST_MS)
    if (server.check_interval_s, server.down_interval_ms) == (interval_s, down_ms):
        return server
    earlier = known.get(key)
    if earlier and earlier[0] is server:
        checked = earlier[1]
        if (checked.check_interval_s, checked.down_interval_ms) == (interval_s, down_ms):
            return checked
    checked = server._replace(check_interval_s=interval_s, down_interval_ms=down_ms)
    known[key] = server, checked
    return checked


def _find_paces(servers: Iterable[Server], before: Mapping[Key, Pace], sight: Sight) -> dict[Key, Pace]:
    keys = [(server.service, server.name) for server in servers]
    known, down = sight.known, sight.down
    if down is None:
        return {key: before[key] for key in keys if key in before} if before else {}
    out = [key for key in keys if key in down or (known is not None and key not in known)]
    if not out and not before:
        return {}
    least = _find_exponent(len(out) * 1000 / FASTEST_MS, sight.rate / 2)
    paces = {key: Pace(before[key].exponent, 0) for key in keys if key in before and before[key].exponent}
    now_ns = sight.now_ns
    steps = [(now_ns - int(limit_s * 1e9), step) for limit_s, step in _STEPS]
    for key in out:
        earlier = before.get(key, _UNHURRIED)
        down_ns = now_ns
        if earlier.down_ns:
            # A time in the future was written before the clock was set back.
            down_ns = min(max(earlier.down_ns, sight.files[key[1]].mtime_ns), now_ns)
        exponent = least
        for before_ns, step in steps:
            if down_ns <= before_ns and step > exponent:
                exponent = step
        if down_ns == earlier.down_ns and exponent <= earlier.exponent:
            paces[key] = earlier  # each change begins its wait for the next check anew
        else:
            paces[key] = Pace(exponent, down_ns)
    return paces


def _find_interval(before: Checks, sight: Sight) -> tuple[int, int]:
    """Return the interval for servers that are up, and since when; it does not follow each small change."""
    count = sight.proven_count
    least_s = 2 ** _find_exponent(count, sight.rate / 2)
    if least_s > before.interval_s:
        return least_s, sight.now_ns
    ample_s = 2 ** _find_exponent(2 * count, sight.rate / 2)
    is_recent = 0 <= sight.now_ns - before.since_ns < _SLACK_S * 1e9
    if ample_s < before.interval_s and not is_recent:
        return ample_s, sight.now_ns
    return before.interval_s, before.since_ns


def _find_exponent(rate: float, most: float) -> int:
    """Return how often a rate must be halved to be no more than the most."""
    return min(EXPONENT_MAX, max(0, math.ceil(math.log2(rate / most)))) if rate else 0
