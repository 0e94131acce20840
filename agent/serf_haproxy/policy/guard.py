"""The guard against mass loss: servers that are lost together are held. Pure.

Broken gossip looks like many nodes that die together. HAProxy's own health checks can tell the two apart, so such
servers stay in HAProxy under these checks. The guard needs only the time at which each server was lost, which node
files and the last record say. It has no memory of its own and decides the same after any restart.
"""

import bisect
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class GuardRules(NamedTuple):
    """When servers are held.

    Attributes:
        share: The share of all servers that must be exceeded by those lost together; 0 to 1.
        window_s: Losses that are no further apart than this belong together, seconds.
        hold_s: How long a lost server is held, seconds; 0: never.
        released_ns: When an operator last released all held servers, nanoseconds since the epoch.
        released: When an operator last released a node alone, nanoseconds since the epoch, by its name.
    """

    share: float = 0.5
    window_s: float = 60.0
    hold_s: float = 0.0
    released_ns: int = 0
    released: Mapping[str, int] = {}

    def find_release_ns(self, name: str) -> int:
        """Return when a node was released last, alone or with all others, nanoseconds since the epoch; 0 for never."""
        return max(self.released_ns, self.released.get(name, 0))


def hold(
    losses: Mapping[str, int],
    standing_count: int,
    leaves_ns: Sequence[int],
    rules: GuardRules,
    now_ns: int,
) -> dict[str, float]:
    """Return the lost servers that are held, and for how many more seconds.

    Losses belong together when each is no further than the window from the one before: a node that is cut off from the
    gossip finds the others dead one by one. They are held when they are more than the share of all servers that existed
    at the first loss, or when no server is left and the last loss is among them.

    Args:
        losses: When each server was lost that did not leave gracefully, nanoseconds since the epoch, by name.
        standing_count: How many other servers there are.
        leaves_ns: When other servers left gracefully: they existed before, but their leave is not a loss.
        rules: When servers are held.
        now_ns: The time; a loss in its future (the clock was set back) counts as a loss of this moment.
    """
    left_s = {name: rules.hold_s - max(0, now_ns - at_ns) / 1e9 for name, at_ns in losses.items()}
    ordered = sorted(
        (at_ns, name) for name, at_ns in losses.items() if at_ns > rules.find_release_ns(name) and left_s[name] > 0
    )
    leaves = sorted(leaves_ns)
    held: dict[str, float] = {}
    start = 0
    for end in range(1, len(ordered) + 1):
        if end < len(ordered) and ordered[end][0] - ordered[end - 1][0] <= rules.window_s * 1e9:
            continue
        total = standing_count + len(ordered) - start + len(leaves) - bisect.bisect_left(leaves, ordered[start][0])
        is_all = not standing_count and end == len(ordered)
        if is_all or end - start > rules.share * total:
            held.update((name, left_s[name]) for _, name in ordered[start:end])
        start = end
    return held
