"""Larger weights in the same ratio: measured weights need room below them. Pure."""

import math
from collections.abc import Sequence

from serf_haproxy.policy.server import Server

_STEPS = (100, 50, 25, 12, 6, 3, 2)
_LARGEST = 128  # with a weight of 100 a server can get a hundredth of it
# With balance random each unit of weight is 16 places in a tree of HAProxy's, of 48 bytes each: so much in all takes it
# 37 MiB, 0.4 s at its start, and 0.3 ms for a change. The other algorithms need nothing for larger weights.
_DEAR, _TOTAL = "random", 51200


def scale_up(servers: Sequence[Server], algorithm: str) -> tuple[Server, ...]:
    """Return a service's servers with weights that are larger, up to a hundred times, in the same ratio.

    With several hundred servers balance random leaves less room, and the factor is one of a few: another server rarely
    changes the weights of all.

    Args:
        servers: The servers.
        algorithm: HAProxy's `balance`.
    """
    weights = [1 if server.weight is None else server.weight for server in servers]
    most = min(
        _LARGEST / max(weights, default=1) if any(weights) else 1,
        (_TOTAL if algorithm == _DEAR else math.inf) / (sum(weights) or 1),
    )
    factor = next((step for step in _STEPS if step <= most), 1)
    return tuple(server._replace(weight=factor * weight) for server, weight in zip(servers, weights, strict=True))
