"""Servers with a few workers and queues, and a balancer that chooses by weight: an exact simulation of its counters."""

import dataclasses
import heapq
import random
from collections.abc import Callable

from serf_haproxy.balance.law import Pool, Share, weigh
from serf_haproxy.haproxy.traffic import Traffic

LIMIT = 100
_LOOK_S = 0.05


@dataclasses.dataclass
class Server:
    """A server with exponential service times.

    Attributes:
        service_s: Mean time that a worker needs.
        worker_count: Its workers; further requests wait.
        failed_share: The part of its requests that fail at once.
    """

    service_s: float = 0.02
    worker_count: int = 4
    failed_share: float = 0.0
    free_s: list[float] = dataclasses.field(default_factory=list)

    def take(self, now_s: float, chance: random.Random) -> tuple[float, bool]:
        """Take a request; return when it ends, and whether it fails."""
        is_failed = chance.random() < self.failed_share
        if is_failed:
            end_s = now_s
        else:
            free_s = heapq.heappop(self.free_s) if len(self.free_s) >= self.worker_count else now_s
            end_s = max(now_s, free_s) + chance.expovariate(1 / self.service_s)
            heapq.heappush(self.free_s, end_s)
        return end_s, is_failed


@dataclasses.dataclass
class Counters:
    """What a balancer counts of a server."""

    started_count: int = 0
    answered_count: int = 0
    failed_count: int = 0
    ends_s: list[tuple[float, bool]] = dataclasses.field(default_factory=list)

    def count(self, now_s: float, weight: int) -> Traffic:
        """Return its counters."""
        while self.ends_s and self.ends_s[0][0] <= now_s:
            self.answered_count += 1
            self.failed_count += heapq.heappop(self.ends_s)[1]
        return Traffic(
            weight, True, True, False, len(self.ends_s), 0, self.started_count, self.answered_count, 0,
            self.failed_count,
        )  # fmt: skip


class Simulation:
    """Balancers that each measure alone, before the same servers.

    Args:
        servers: The servers, by name.
        rate: Requests a second, of all balancers together.
        seed: Of its random numbers.
        balancer_count: How many balancers share the requests.
        choose_pause_s: Returns the time until the next look.
    """

    def __init__(
        self,
        servers: dict[str, Server],
        rate: float,
        seed: int,
        balancer_count: int = 1,
        choose_pause_s: Callable[[], float] = lambda: _LOOK_S,
    ) -> None:
        self.servers, self.rate, self.choose_pause_s = servers, rate, choose_pause_s
        self.chance = random.Random(seed)
        self.now_s = 0.0
        self.pools = [Pool() for _ in range(balancer_count)]
        self.weights = [dict.fromkeys(servers, LIMIT) for _ in self.pools]
        self.shares: list[dict[str, Share]] = [{} for _ in self.pools]
        self._parts = [{name: Counters() for name in servers} for _ in self.pools]
        self.latencies_s: list[float] = []
        self.got: list[str] = []
        self.failed_count = 0

    def run(self, span_s: float, on_look: Callable[[], object] = lambda: None) -> None:
        """Go on for some time; `on_look` is called after each look."""
        end_s, due_s = self.now_s + span_s, self.now_s
        looked_s, look_s = self.now_s, self.now_s + self.choose_pause_s()
        while self.now_s < end_s:
            due_s += self.chance.expovariate(self.rate)
            while look_s <= min(due_s, end_s):
                self.now_s = look_s
                self._look(look_s - looked_s)
                on_look()
                looked_s, look_s = look_s, look_s + self.choose_pause_s()
            self.now_s = min(due_s, end_s)
            self._request()

    def _request(self) -> None:
        index = self.chance.randrange(len(self.pools))
        weights = self.weights[index]
        name = self.chance.choices(list(weights), list(weights.values()))[0]
        part = self._parts[index][name]
        end_s, is_failed = self.servers[name].take(self.now_s, self.chance)
        part.started_count += 1
        heapq.heappush(part.ends_s, (end_s, is_failed))
        self.latencies_s.append(end_s - self.now_s)
        self.failed_count += is_failed
        self.got.append(name)

    def _look(self, elapsed_s: float) -> None:
        for index, parts in enumerate(self._parts):
            weights = self.weights[index]
            traffic = {name: part.count(self.now_s, weights[name]) for name, part in parts.items()}
            self.pools[index], shares = weigh(self.pools[index], traffic, dict.fromkeys(weights, LIMIT), elapsed_s)
            self.shares[index].update(shares)
            weights.update({name: share.weight for name, share in shares.items()})
