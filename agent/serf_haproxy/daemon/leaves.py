"""Members that leave without end: the cluster is asked whether they do.

Late news of an earlier leave can make a Serf agent list a member as leaving that is alive, and nothing corrects it
(hashicorp/serf#662): the member does not hear of it. `force-leave` tells all members that it leaves. One that is alive
hears that and contradicts; one that does leave, or has died, takes no notice. A Serf agent that lists no other member
as alive tells nothing; then the member is the last server, which goes on serving.
"""

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.serf.client import Client
from serf_haproxy.serf.events import LEAVING
from serf_haproxy.serf.nodes import NodeFile

log = logging.getLogger("serf-haproxy")

_LEAVE_S = 20.0  # a leave takes about a second, and 10 s where no other member acknowledges it
_PAUSES_S = (10.0, 30.0, 60.0, 300.0, 600.0)
_TELL_S = 0.5  # after which the member has contradicted
_COUNT, _REST_S = 16, 1.0  # so many members at once, and so long before the next ones


class _Leave(NamedTuple):
    """A member that leaves: when to ask about it, on the monotonic clock, and how often that was done."""

    ask_at_s: float
    asked_count: int = 0


class Leaves:
    """Remembers which members leave, and asks about those that do not end."""

    def __init__(self) -> None:
        self._leaves: dict[str, _Leave] = {}
        self._rests_until_s = 0.0

    def follow(self, files: Mapping[str, NodeFile], now_s: float) -> None:
        """Take over which members leave now.

        Args:
            files: All node files, by name.
            now_s: The time on the monotonic clock.
        """
        names = [name for name, file in files.items() if file.status == LEAVING]
        self._leaves = {name: self._leaves.get(name, _Leave(now_s + _LEAVE_S)) for name in names}

    def due_s(self) -> float:
        """Return when to ask, on the monotonic clock; infinity for never."""
        return max(self._rests_until_s, min((one.ask_at_s for one in self._leaves.values()), default=math.inf))

    def ask(self, client: Client, now_s: float) -> float | None:
        """Ask about those that are due; return when to look at the roster, None where nothing was asked."""
        due = [name for name, one in self._leaves.items() if one.ask_at_s <= now_s][:_COUNT]
        asked = [name for name in due if client.is_up() and client.force_leave(name)]
        for name in due:
            count = self._leaves[name].asked_count
            self._leaves[name] = _Leave(now_s + _PAUSES_S[min(count, len(_PAUSES_S) - 1)], count + (name in asked))
        for name in (name for name in asked if self._leaves[name].asked_count == 1):
            log.info("%s", f"node {name} has been leaving for {_LEAVE_S:g} s: it is asked whether it does")
        self._rests_until_s = now_s + _REST_S
        return now_s + _TELL_S if asked else None
