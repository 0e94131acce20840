"""A service whose servers come and go: an exact count of requests and servers, in steps of simulated time.

Requests come at random (Poisson) at a rate that changes; work takes a random time (exponential); each server works at
`maxconn` requests at once, and further ones wait in one queue, first come, first served, as in HAProxy's backend. While
nothing waits, what is in flight after a step follows exactly from what was and what came; while something waits, all
servers are busy, and what they finish is again random. Servers are alike and are counted, so that ten thousand take no
more time than one.
"""

import dataclasses
import math
from collections import deque
from typing import Any, NamedTuple, Protocol

import numpy as np

_CALM = 0.8  # below this part of their places servers are never all busy within a step

Array = np.ndarray[Any, np.dtype[np.float64]]


class Shape(NamedTuple):
    """The service.

    Attributes:
        service_s: Mean time of the work of a request.
        maxconn: Requests that a server works at.
        start_s: From the order to start a server to its first request.
        drain_s: From the order to drain a server until it is gone.
        target: The part of `maxconn` that a server should be used to.
        least: The fewest servers.
        most: The most servers.
        step_s: Length of a step.
    """

    service_s: float = 0.2
    maxconn: int = 10
    start_s: float = 5.0
    drain_s: float = 2.0
    target: float = 0.7
    least: int = 1
    most: int = 200
    step_s: float = 1.0

    @property
    def capacity(self) -> float:
        """The demand that one server is meant for."""
        return self.target * self.maxconn


class Servers(NamedTuple):
    """How many servers are in service, start and drain."""

    serving: int
    starting: int
    draining: int


class Controller(Protocol):
    """What decides about the number of servers."""

    def decide(self, now_s: float, demand: int, servers: Servers) -> tuple[int, int, int]:
        """Return how many draining servers return, how many are started, and how many are taken away."""


@dataclasses.dataclass
class Course:
    """What happened, an entry for each step.

    Attributes:
        arrivals: Requests that came.
        demand: Requests in flight or queued at the end of the step.
        queue: Requests queued at the end of the step.
        serving: Servers in service.
        existing: Those that were paid for: in service, starting or draining.
        started: Servers started.
    """

    shape: Shape
    arrivals: Array
    demand: Array
    queue: Array
    serving: Array
    existing: Array
    started: Array

    @property
    def server_hours(self) -> float:
        """What was paid."""
        return float(self.existing.sum()) * self.shape.step_s / 3600

    def find_waits(self) -> Array:
        """Return how long the requests of each step wait for a server, in seconds.

        That is the time until so many requests have begun, or the queue before them divided by what all servers finish,
        if that is less: servers that join meanwhile shorten it, and the queue of a moment is over before the step.
        """
        came = np.cumsum(self.arrivals)
        begun = came - self.queue
        times = np.arange(1, len(came) + 1) * self.shape.step_s
        middle = came - self.arrivals / 2
        begins = np.interp(middle, np.maximum.accumulate(begun), times)
        until = np.maximum(0.0, begins - (times - self.shape.step_s / 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = self.queue * self.shape.service_s / (self.serving * self.shape.maxconn)
        waits: Array = np.where(self.queue > 0, np.fmin(until, np.where(self.serving > 0, ahead, np.inf)), 0.0)
        return waits

    def find_latency(self, share: float, within: slice = slice(None)) -> float:
        """Return the latency that a share of the requests does not exceed, in seconds."""
        waits, counts = self.find_waits()[within], self.arrivals[within]
        edges = np.concatenate(([0.0], np.geomspace(1e-3, max(1.0, waits.max(initial=0.0)) + 1e-9, 400)))
        bins = np.digitize(waits, edges[1:], right=True)
        weights = np.bincount(bins, counts, len(edges))
        total = weights.sum()
        if not total:
            return 0.0
        low, high = 0.0, float(edges[-1]) + 50 * self.shape.service_s
        for _ in range(50):
            middle = (low + high) / 2
            longer = (weights * np.exp(-np.maximum(0.0, middle - edges) / self.shape.service_s)).sum() / total
            low, high = (middle, high) if longer > 1 - share else (low, middle)
        return high


def simulate(rates: Array, shape: Shape, controller: Controller, serving: int, seed: int = 1) -> Course:
    """Return what happens.

    Args:
        rates: Requests a second, for each step.
        shape: The service.
        controller: What decides, after each step.
        serving: Servers at the beginning.
        seed: Of the random numbers.
    """
    chance = np.random.default_rng(seed)
    arrivals = chance.poisson(rates * shape.step_s)
    stay = math.exp(-shape.step_s / shape.service_s)
    stay_new = shape.service_s / shape.step_s * (1 - stay)
    begun_steps, drain_steps = round(shape.start_s / shape.step_s), round(shape.drain_s / shape.step_s)
    starting: deque[list[int]] = deque()  # the step in which they join, and how many
    draining: deque[list[int]] = deque()
    total = start_count = drain_count = 0
    rows: list[tuple[int, int, int, int, int]] = []
    binomial, poisson = chance.binomial, chance.poisson
    finished = shape.step_s / shape.service_s
    for step, came in enumerate(arrivals.tolist()):
        while starting and starting[0][0] <= step:
            joined = starting.popleft()[1]
            serving += joined
            start_count -= joined
        while draining and draining[0][0] <= step:
            drain_count -= draining.popleft()[1]
        places = serving * shape.maxconn
        free = int(binomial(came, stay_new)) if came else 0
        if stay > 1e-9 and total:
            free += int(binomial(min(total, places), stay))
        if max(total, free) <= _CALM * places:
            total = free
        elif total + came - places * finished > places / _CALM:
            total = max(places, total + came - (int(poisson(places * finished)) if places else 0))
        else:
            total = _hover(chance, total, came, places, finished)
        returned, more, fewer = controller.decide(
            (step + 1) * shape.step_s, total, Servers(serving, start_count, drain_count)
        )
        rows.append((total, max(0, total - places), serving, serving + start_count + drain_count, more))
        if returned:
            serving += _take(draining, returned)
            drain_count -= returned
        if more:
            starting.append([step + 1 + begun_steps, more])  # it was decided at the end of this step
            start_count += more
        if fewer:
            early = min(fewer, start_count) if getattr(controller, "ends_starts", False) else 0
            start_count -= _take(starting, early)
            serving -= fewer - early
            drain_count += fewer - early
            draining.append([step + 1 + drain_steps, fewer - early])
    columns = np.array(rows, dtype=np.float64).T
    return Course(shape, arrivals.astype(np.float64), *columns)


def _hover(chance: np.random.Generator, total: int, came: int, places: int, finished: float) -> int:
    """Return the demand after a step in which servers are now all busy and now not: in parts of a quarter of a request.

    Args:
        chance: The random numbers.
        total: The demand before.
        came: Requests that come, at any time of the step.
        places: Requests that are worked at.
        finished: How many requests a place finishes in a step.
    """
    count = max(1, math.ceil(4 * finished))
    for left in range(count, 0, -1):
        new = int(chance.binomial(came, 1 / left))
        came -= new
        part = finished / count
        busy = min(places, total + new / 2)
        busy = min(places, total + (new - busy * part) / 2)
        total = max(0, total + new - int(chance.poisson(max(0.0, busy) * part)))
    return total


def _take(line: "deque[list[int]]", number: int) -> int:
    """Take so many out of a line, the last ones first."""
    left = number
    while left:
        last = line[-1]
        taken = min(left, last[1])
        last[1] -= taken
        left -= taken
        if not last[1]:
            line.pop()
    return number
