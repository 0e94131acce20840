"""Reads the load of services from HAProxy again and again."""

from collections.abc import Collection

from serf_haproxy.autoscale.gauge import Gauge, ask_for, read_gauges
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.sections import QUESTION, read_numbers
from serf_haproxy.haproxy.socket import ask

_ASK_S = 1.0
_RECENT_S = 1.0


class Meter:
    """The load of services at this balancer.

    Args:
        socket_path: HAProxy's runtime socket.
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._numbers: dict[str, str] = {}
        self._recent: dict[str, list[tuple[float, int]]] = {}

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
        return gauges

    def find_peak(self, service: str) -> int:
        """Return the greatest demand of the last second, of a service that was just read."""
        return max(demand for _, demand in self._recent[service])

    def _read(self, services: Collection[str], *, has_waits: bool) -> dict[str, Gauge]:
        numbers = [self._numbers[name] for name in services if name in self._numbers]
        if not numbers:
            return {}
        gauges = read_gauges(ask(self._socket_path, ask_for(numbers, has_waits=has_waits), _ASK_S))
        return {name: gauge for name, gauge in gauges.items() if name in services}
