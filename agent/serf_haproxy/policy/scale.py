"""Larger weights in the same ratio: measured weights need room below them. Pure."""

from collections.abc import Sequence

from serf_haproxy.policy.server import Server

_STEPS = (100, 50, 25, 12, 6, 3, 2)
_LARGEST = 128  # with a weight of 100 a server can get a hundredth of it
_TOTAL = 25600  # memory and start of HAProxy with balance random grow with the total


def scale_up(servers: Sequence[Server]) -> tuple[Server, ...]:
    """Return a service's servers with weights that are larger, up to a hundred times, in the same ratio.

    With several hundred servers there is less room, and the factor is one of a few: another server rarely changes the
    weights of all.
    """
    weights = [1 if server.weight is None else server.weight for server in servers]
    most = min(_LARGEST / max(weights, default=1) if any(weights) else 1, _TOTAL / (sum(weights) or 1))
    factor = next((step for step in _STEPS if step <= most), 1)
    return tuple(server._replace(weight=factor * weight) for server, weight in zip(servers, weights, strict=True))
