"""Drift: what was changed by hand at HAProxy's sockets, in words. Pure."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from serf_haproxy.config.commands import OUT, WATCHERS, name_of
from serf_haproxy.config.diff import find_wrong, weigh
from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.policy.snapshot import Seen
from serf_haproxy.services import Key


class Drift(NamedTuple):
    """A server that was not as it had been left.

    Attributes:
        key: Its section and name.
        what: How it was, in words.
    """

    key: Key
    what: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"server {name_of(self.key)} was {self.what}"


def list_drifts(goal: Layout, before: Layout, seen: Mapping[Key, Seen], *, is_settled: bool) -> tuple[Drift, ...]:
    """Return the servers that are not as they were left, sorted.

    Args:
        goal: What should run.
        before: What was published last.
        seen: What runs.
        is_settled: Whether what was published is what should run: then every difference is a drift. Else a pass may
            have been cut short, and only what no pass does to a server that stays is one.
    """
    drifts = []
    for key in sorted(find_wrong(goal, before, seen)):
        line = goal.servers[key]
        if before.servers.get(key) == line:
            running = seen.get(key)
            weight = weigh(goal, before, key, running) if running else 0
            faults = list(_list_faults(line._replace(weight=weight), running, is_settled=is_settled))
            drifts += [Drift(key, ", ".join(faults))] if faults else []
    return tuple(drifts)


def _list_faults(line: Line, running: Seen | None, *, is_settled: bool) -> Iterator[str]:
    if running is None:
        if is_settled:
            yield "deleted"
        return
    if running.is_maintained:
        yield "in maintenance"
    if running.is_drained:
        yield "in HAProxy's drain"
    if running.is_unwatched:
        yield "without its health checks"
    if is_settled and running.endpoint != line.endpoint:
        yield f"at {running.endpoint} instead of {line.endpoint}"
    if is_settled and running.weight != line.weight:
        yield f"of weight {running.weight} instead of {line.weight}"
    if is_settled and running.operation in OUT and WATCHERS.isdisjoint(line.words) and not running.is_maintained:
        yield "down without health checks"
