"""Reads the load of services from HAProxy again and again."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

from serf_haproxy.autoscale.gauge import Gauge, Row, ask_for, read_gauges
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.sections import QUESTION, read_numbers
from serf_haproxy.haproxy.socket import ask

_ASK_S = 1.0
_RECENT_S = 1.0
_WORK_S = 30.0  # what is so old counts a third in the mean time of a request
_ENOUGH = 5.0  # requests from which a mean is known


class Work(NamedTuple):
    """What servers have done lately; what is older counts less.

    Attributes:
        now_s: When they were seen last.
        servers: How they were then.
        spent_s: Seconds that they worked, at each request by itself.
        started: Requests that were sent to them.
    """

    now_s: float = -math.inf
    servers: Mapping[str, Row] = {}
    spent_s: float = 0.0
    started: float = 0.0

    def follow(self, now_s: float, servers: Mapping[str, Row]) -> "Work":
        """Return what they have done with what is seen now."""
        if not servers or now_s <= self.now_s:
            return self
        span_s = now_s - self.now_s
        kept = math.exp(-span_s / _WORK_S)
        pairs = [(self.servers[name], row) for name, row in servers.items() if name in self.servers]
        if not pairs or any(row.started < before.started for before, row in pairs):  # a reload or a long gap
            return Work(now_s, servers, kept * self.spent_s, kept * self.started)
        spent_s = span_s * sum(before.at_work + row.at_work for before, row in pairs) / 2
        started = sum(row.started - before.started for before, row in pairs)
        return Work(now_s, servers, kept * self.spent_s + spent_s, kept * self.started + started)

    @property
    def mean_s(self) -> float | None:
        """How long a server works at a request, on average, by Little's law; None before enough is known."""
        return self.spent_s / self.started if self.started >= _ENOUGH and self.spent_s else None


class Meter:
    """The load of services at this balancer.

    Args:
        socket_path: HAProxy's runtime socket.
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._numbers: dict[str, str] = {}
        self._recent: dict[str, list[tuple[float, int]]] = {}
        self._work: dict[str, Work] = {}

    def read(self, services: Collection[str], now_s: float, *, has_waits: bool = False) -> dict[str, Gauge]:
        """Return the load of each service that HAProxy has; of none where it does not answer.

        Args:
            services: The names of the services.
            now_s: A clock that only goes forward.
            has_waits: Whether the requests of some wait while there is no server.
        """
        try:
            gauges = self._read(services, has_waits=has_waits)
            if gauges.keys() != set(services):  # there is a service more, or a reload has given other numbers
                self._numbers = read_numbers(ask(self._socket_path, QUESTION, _ASK_S))
                gauges = self._read(services, has_waits=has_waits)
        except HaproxyFault:
            self._numbers, self._recent = {}, {}
            return {}
        for name, gauge in gauges.items():
            recent = [one for one in self._recent.get(name, []) if now_s - one[0] < _RECENT_S]
            self._recent[name] = [*recent, (now_s, gauge.demand)]
            self._work[name] = self._work.get(name, Work()).follow(now_s, gauge.servers)
        return {name: gauge._replace(work_s=self._work[name].mean_s) for name, gauge in gauges.items()}

    def find_peak(self, service: str) -> int:
        """Return the greatest demand of the last second, of a service that was just read."""
        return max(demand for _, demand in self._recent[service])

    def _read(self, services: Collection[str], *, has_waits: bool) -> dict[str, Gauge]:
        numbers = [self._numbers[name] for name in services if name in self._numbers]
        if not numbers:
            return {}
        gauges = read_gauges(ask(self._socket_path, ask_for(numbers, has_waits=has_waits), _ASK_S))
        return {name: gauge for name, gauge in gauges.items() if name in services}
