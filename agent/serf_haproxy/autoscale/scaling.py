"""The rules by which one service scales: what the services file says of it. Pure."""

from typing import NamedTuple

from serf_haproxy.services.peaks import WEEK_MIN, Peak


class Scaling(NamedTuple):
    """How one service scales. `min` is at most `max`; each number says from where to where it may be.

    Attributes:
        min: The fewest servers: 0, to scale to none at all, to 10,000.
        max: The most servers that may exist, with those that start, drain, stop or are in maintenance: 1 to 10,000.
        server_maxconn: Requests that a server takes at once; further ones wait in HAProxy: 1 to 1,000,000.
        target: The part of `server_maxconn` that a server should be used to: 0.1 to 1.
        out_window_s: Servers are added for the greatest demand of so many seconds: 1 to 60.
        in_window_s: A server is taken away only if the greatest demand of so many seconds allows it: 10 to 3,600;
            60 to 300 fit most. For a load that comes and goes, longer than it is gone.
        cooldown_s: Least time from one change to the next server that is taken away: 0 to 3,600.
        start_limit_s: A server that is not in service by then is given up: longer than the application ever needs to
            start; 1 to 3,600.
        drain_least_s: A server drains for so long even if it is empty: for sticky clients, who have nothing in flight
            between two requests; 0 to 86,400.
        drain_limit_s: It is stopped after so long even if it is not empty: 1 to 86,400, at least `drain_least_s`.
        zero_after_s: The last server goes when there was no request for so long; with a `min` of 0. 10 to 86,400.
        at_once: The most servers that drain at the same time, 1 to 1,000; where ten or more are there, a fifth of them
            may.
        peaks: Times of the week with more servers than `min`.
    """

    min: int
    max: int
    server_maxconn: int
    target: float = 0.7
    out_window_s: float = 3.0
    in_window_s: float = 60.0
    cooldown_s: float = 10.0
    start_limit_s: float = 120.0
    drain_least_s: float = 0.0
    drain_limit_s: float = 60.0
    zero_after_s: float = 300.0
    at_once: int = 1
    peaks: tuple[Peak, ...] = ()

    @property
    def capacity(self) -> float:
        """The mean demand that one server is meant for."""
        return self.target * self.server_maxconn

    @property
    def peak_capacity(self) -> float:
        """The demand of a moment that one server is meant for: halfway from its mean to what it can take."""
        return (1 + self.target) / 2 * self.server_maxconn

    def find_floor(self, week_min: int | None) -> int:
        """Return the fewest servers at a minute of the week, at most `max`; None where the time is not known."""
        leasts = [peak.least for peak in self.peaks if week_min is not None and _is_within(peak, week_min)]
        return min(self.max, max((self.min, *leasts)))


def _is_within(peak: Peak, week_min: int) -> bool:
    length_min = (peak.end_min - peak.begin_min) % WEEK_MIN or WEEK_MIN
    return (week_min - peak.begin_min) % WEEK_MIN < length_min
