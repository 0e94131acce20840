"""Services that members announce and the operator has not named. Pure.

Each new one takes a reload, and members may invent any number of names. So a name counts only when a member that may
be a server has announced it for some seconds; the names change at most once a minute; there are at most so many at a
time; and one stays for an hour after its last member. However hostile the gossip is, that bounds the reloads.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.claim import list_offers
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.file import Announced

SETTLE_S = 5.0
PAUSE_S = 60.0
KEEP_S = 3600.0
_TOLD_COUNT = 100


class Limits(NamedTuple):
    """What bounds the announced services.

    Attributes:
        most: How many there may be at a time.
        refuse: Returns why there may be none of a name, "" where there may.
    """

    most: int
    refuse: Callable[[str], str]


def find_announced(
    files: Iterable[NodeFile], rules: Rules, before: Announced, limits: Limits, now_s: float
) -> Announced:
    """Return the services that members announce.

    Args:
        files: The node files.
        rules: Which members become servers of such a service; the service's name in it does not matter.
        before: What the pass before returned.
        limits: What bounds them.
        now_s: The time, seconds since the epoch.
    """
    ages_s = _find_ages(files, rules, now_s)
    kept = {
        name: now_s if name in ages_s else min(seen_s, now_s)
        for name, seen_s in before.seen_s.items()
        if not limits.refuse(name)
    }
    expired = {name for name, seen_s in kept.items() if now_s - seen_s >= KEEP_S}
    new = sorted(name for name in ages_s.keys() - kept.keys() if not limits.refuse(name))
    steady = [name for name in new if ages_s[name] >= SETTLE_S]
    added = steady[: max(0, limits.most - len(kept) + len(expired))]
    since_s = now_s - before.changed_at_s
    pause_s = PAUSE_S - since_s if 0 <= since_s < PAUSE_S else 0.0  # a clock that was set back ends the pause
    seen_s, times_s = kept, [SETTLE_S - ages_s[name] for name in new if ages_s[name] < SETTLE_S]
    if pause_s:
        times_s += [pause_s] if added or expired else []
    else:
        seen_s = {name: at_s for name, at_s in kept.items() if name not in expired} | dict.fromkeys(added, now_s)
    times_s += [KEEP_S - (now_s - at_s) for at_s in seen_s.values() if now_s - KEEP_S < at_s < now_s]
    return Announced(
        seen_s,
        now_s if seen_s.keys() != before.seen_s.keys() else before.changed_at_s,
        min(times_s, default=None),
        {
            name: limits.refuse(name) or _explain(ages_s[name], len(seen_s), limits.most)
            for name in sorted(ages_s.keys() - seen_s.keys())[:_TOLD_COUNT]
        },
    )


def _find_ages(files: Iterable[NodeFile], rules: Rules, now_s: float) -> dict[str, float]:
    """Return for how many seconds each name has been announced by a member that may be a server of such a service."""
    ages_s: dict[str, float] = {}
    for file in files:
        if file.status != ALIVE:
            continue
        age_s = now_s - file.mtime_ns / 1e9
        age_s = age_s if age_s >= 0 else SETTLE_S  # the clock was set back, and nothing tells by how much
        for name in list_offers(file.member):
            if name != DEFAULT_SERVICE and age_s > ages_s.get(name, -1.0) and _may_serve(file, rules, name):
                ages_s[name] = age_s
    return ages_s


def _may_serve(file: NodeFile, rules: Rules, name: str) -> bool:
    try:
        rules._replace(service=name).read_server(file.member)
    except ValueError:
        return False
    return True


def _explain(age_s: float, count: int, most: int) -> str:
    """Return why a name that may be served is not served yet."""
    if age_s < SETTLE_S:
        return f"members may announce services, and this one is new: it waits for {SETTLE_S - age_s:.1f} s"
    if count >= most:
        return f"members may announce services, but there are {most} already, as many as there may be"
    return f"members may announce services, and it waits: their names change at most once in {PAUSE_S:.0f} s"
