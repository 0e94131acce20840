"""Requests as they arrive from outside: when, from which client, for which item, and with how much work.

They follow from a seed alone: whatever is compared gets the same requests, and differs in nothing else.
"""

import bisect
import itertools
import math
import random
from typing import NamedTuple

CLIENT_COUNT, ITEM_COUNT = 200, 1000
# Bimodal work: one request of ten is twenty times as long as the others.
_LONG_SHARE, _LONG_RATIO = 0.1, 20.0


class Request(NamedTuple):
    """One request: seconds after the start, its client and its item as numbers, its work in microseconds."""

    at_s: float
    client: int
    item: int
    work_us: int


class Work(NamedTuple):
    """The work of requests: "exponential" or "bimodal", and its mean, seconds."""

    kind: str
    mean_s: float


def make_requests(seed: int, rate: float, duration_s: float, work: Work, skew: float) -> list[Request]:
    """Return Poisson arrivals.

    Args:
        seed: The seed of the random numbers.
        rate: Requests a second.
        duration_s: Length in seconds.
        work: How much work a request is.
        skew: A client's share falls with its rank to this power: 0 for equal clients.
    """
    chance = random.Random(seed)  # noqa: S311 - a schedule that can be repeated, no secret
    bounds = list(itertools.accumulate((rank + 1) ** -skew for rank in range(CLIENT_COUNT)))
    draw = {"exponential": _draw_exponential, "bimodal": _draw_bimodal}[work.kind]
    requests: list[Request] = []
    at_s = chance.expovariate(rate)
    while at_s < duration_s:
        client = bisect.bisect_left(bounds, chance.random() * bounds[-1])
        work_us = math.ceil(1e6 * draw(chance, work.mean_s))
        requests.append(Request(at_s, client, chance.randrange(ITEM_COUNT), work_us))
        at_s += chance.expovariate(rate)
    return requests


def _draw_exponential(chance: random.Random, mean_s: float) -> float:
    return chance.expovariate(1 / mean_s)


def _draw_bimodal(chance: random.Random, mean_s: float) -> float:
    short_s = mean_s / (1 - _LONG_SHARE + _LONG_SHARE * _LONG_RATIO)
    return short_s * (_LONG_RATIO if chance.random() < _LONG_SHARE else 1.0)
