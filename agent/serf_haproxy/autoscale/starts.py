"""Starts that fail: how long to wait before the next one. Pure.

Slots that fail at about the same time are one failure. While no server has come into service and stayed since the last
one, pauses double, and after the second failure one slot is started at a time.
"""

from typing import NamedTuple

from serf_haproxy.autoscale.slots import Tally

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
PROVEN_S = 10.0  # a server that has been in service for so long has started well


class Starts(NamedTuple):
    """What is remembered of starts that failed.

    Attributes:
        row: Failures since a server last came into service and stayed.
        failed_s: When the last one was; None without any.
        retry_s: No start before that.
        seen: The slots of those failures, and since when each was in its state.
    """

    row: int = 0
    failed_s: float | None = None
    retry_s: float = 0.0
    seen: tuple[tuple[str, float], ...] = ()

    def learn(self, tally: Tally, now_s: float) -> "Starts":
        """Return what is remembered after a look at the slots."""
        if self.failed_s is not None and _is_proven(tally, self.failed_s, now_s):
            return Starts(seen=tuple(one for one in self.seen if one in tally.failed)).learn(tally, now_s)
        news = tuple(one for one in tally.failed if one not in self.seen)
        if not news:
            return self
        is_another = self.failed_s is None or now_s >= self.retry_s
        row = self.row + is_another
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(row - 1, 30))
        names = {name for name, _ in news}
        seen = (*(one for one in self.seen if one[0] not in names), *news)
        return Starts(row, now_s, now_s + pause_s, seen)

    def limit(self, number: int, starting: int, now_s: float) -> int:
        """Return how many slots may be started now, of so many that are wanted, while others start."""
        if self.failed_s is None:
            return number
        if now_s < self.retry_s:
            return 0
        return max(0, min(number, 1 - starting)) if self.row > 1 else number


def _is_proven(tally: Tally, failed_s: float, now_s: float) -> bool:
    """Return whether a server came into service after a failure, and has stayed."""
    return tally.youngest_s is not None and failed_s < tally.youngest_s <= now_s - PROVEN_S
