"""Requests to a lab at a constant mean rate, and the share of each server, live and in the end."""

import asyncio
import collections
import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from serf_haproxy.errors import InputError
from serf_haproxy.lab.arrivals import Work, make_requests
from serf_haproxy.lab.clients import ANSWER_S, Answer, Clients, Spec
from serf_haproxy.lab.screen import say
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.service import HTTP

if TYPE_CHECKING:
    from serf_haproxy.lab.cluster import Lab

_RATE, _DURATION_S, _WORK_S = 2000.0, 3600.0, 1.0  # the largest values
_BAR = 20  # characters for all requests
_LAG_S = 0.005


class Traffic(NamedTuple):
    """The requests that are wanted.

    Attributes:
        rate: Requests a second, on average: Poisson arrivals.
        duration_s: Length, seconds.
        kind: The distribution of the work: "exponential" or "bimodal".
        work_s: Its mean, seconds.
        keeps_cookies: Whether clients keep their cookies.
        seed: The seed of the random numbers.
        service: The service, None for the default one.
        answer_s: A request without an answer by then has failed, seconds.
    """

    rate: float
    duration_s: float
    kind: str = "exponential"
    work_s: float = 0.02
    keeps_cookies: bool = False
    seed: int = 1
    service: str | None = None
    answer_s: float = ANSWER_S


class Result(NamedTuple):
    """What came of some requests.

    Attributes:
        shares: The number of requests that each server answered, by its name.
        took_ms: The latency of each good answer, sorted, milliseconds.
        faults: The number of failures by their reason.
        late_count: Requests that were sent more than 5 ms late, because this machine is busy.
    """

    shares: Mapping[str, int]
    took_ms: Sequence[float]
    faults: Mapping[str, int]
    late_count: int

    @property
    def failed_count(self) -> int:
        """The number of failures."""
        return sum(self.faults.values())

    def percentile(self, percent: float) -> float:
        """Return the latency that so many percent of all requests do not exceed; a failure takes infinitely long."""
        count = len(self.took_ms) + self.failed_count
        rank = max(1, math.ceil(count * percent / 100))
        return self.took_ms[rank - 1] if rank <= len(self.took_ms) else math.inf

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON; an infinite latency is null."""
        latency = {f"p{percent}_ms": self.percentile(percent) for percent in (50, 90, 99)}
        return {
            "requests": len(self.took_ms) + self.failed_count,
            "failed": dict(self.faults),
            "late": self.late_count,
            "shares": dict(self.shares),
            **{key: round(value, 2) if math.isfinite(value) else None for key, value in latency.items()},
        }

    def format(self) -> str:
        """Return the sums as some lines of text."""
        total = sum(self.shares.values()) or 1
        lines = [f"{len(self.took_ms) + self.failed_count} requests, {self.failed_count} failed {_list(self.faults)}"]
        lines += [f"  {name:12} {count:7}  {100 * count / total:5.1f} %" for name, count in self.shares.items()]
        lines.append("  ".join(f"p{percent} {_show(self.percentile(percent))}" for percent in (50, 90, 99)))
        if self.late_count:
            lines.append(
                f"{self.late_count} were sent more than 5 ms late: this machine is busy, and latencies are too high"
            )
        return "\n".join(line.rstrip() for line in lines)


def make_traffic(lab: "Lab", wanted: Traffic, is_quiet: bool = False) -> Result:
    """Make the requests, to all balancers in turn; print a line each second unless quiet.

    Raises:
        InputError: A number is out of range, or the lab has no such service of mode http, or no balancer is up.
    """
    _check(wanted)
    status = lab.status()
    name = wanted.service or DEFAULT_SERVICE
    row = next((row for row in status["services"] if row["service"] == name and row["mode"] == HTTP), None)
    up = [balancer["address"] for balancer in status["balancers"] if balancer["state"] == "up"]
    if row is None or not up:
        known = ", ".join(each["service"] for each in status["services"] if each["mode"] == HTTP)
        raise InputError(f"no balancer serves {name!a}; services of mode http: {known}")
    places = [urlsplit(url) for url in row["reached_at"] if urlsplit(url).hostname in up]
    names = {node["address"]: node["name"] for node in status["nodes"] if node["service"] == name}
    requests = make_requests(wanted.seed, wanted.rate, wanted.duration_s, Work(wanted.kind, wanted.work_s), 0.0)
    doors = [(str(place.hostname), int(place.port or 80)) for place in places]
    spec = Spec(doors, requests, places[0].path or "/", wanted.keeps_cookies, answer_s=wanted.answer_s)
    return sum_up(asyncio.run(_run(spec, names, is_quiet)), names)


def sum_up(answers: Sequence[Answer], names: Mapping[str, str]) -> Result:
    """Return the sums of some answers; `names` are the servers' names by address."""
    shares = collections.Counter(names.get(answer.server, answer.server) for answer in answers if answer.server)
    took_ms = sorted(1000 * answer.took_s for answer in answers if not answer.fault)
    faults = collections.Counter(answer.fault for answer in answers if answer.fault)
    late_count = sum(answer.lag_s > _LAG_S for answer in answers)
    return Result(dict(sorted(shares.items())), took_ms, dict(sorted(faults.items())), late_count)


async def _run(spec: Spec, names: Mapping[str, str], is_quiet: bool) -> list[Answer]:
    clients = Clients(spec)
    task = None if is_quiet else asyncio.create_task(_show_seconds(clients, names))
    try:
        return await clients.run()
    finally:
        if task:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _show_seconds(clients: Clients, names: Mapping[str, str]) -> None:
    """Print a line for each second: the requests of the second before, of which nearly all have ended."""
    loop = asyncio.get_running_loop()
    second = first = 0
    while True:
        await asyncio.sleep(max(0.0, clients.start_s + second + 2 - loop.time()))
        last = first
        while last < len(clients.answers) and clients.answers[last].at_s < second + 1:
            last += 1
        say(_show_second(second + 1, clients.answers[first:last], names))
        second, first = second + 1, last


def _show_second(second: int, answers: Sequence[Answer], names: Mapping[str, str]) -> str:
    ended = [answer for answer in answers if answer.server or answer.fault != "no answer"]
    result = sum_up(ended, names)
    total = sum(result.shares.values()) or 1
    bars = []
    for name in sorted({*names.values(), *result.shares}):
        share = result.shares.get(name, 0) / total
        bars.append(f"{name} {'█' * round(_BAR * share)} {100 * share:.0f} %")
    waiting = len(answers) - len(ended)
    said = f"{second:4} s  {len(answers):4} requests  {result.failed_count} failed  {waiting} waiting"
    latency = "".join(f"  p{percent} {_show(result.percentile(percent))}" for percent in (50, 99)) if ended else ""
    return f"{said}{latency}  {'  '.join(bars)}"


def _check(wanted: Traffic) -> None:
    for what, value, most in (
        ("--rate", wanted.rate, _RATE),
        ("--duration", wanted.duration_s, _DURATION_S),
        ("--work", wanted.work_s, _WORK_S),
    ):
        if not 0 < value <= most:
            unit = ", milliseconds up to 1000" if what == "--work" else f", at most {most:g}"
            raise InputError(f"lab load: {what}: must be more than 0{unit}")


def _show(value_ms: float) -> str:
    return f"{value_ms:.0f} ms" if math.isfinite(value_ms) else "∞"


def _list(faults: Mapping[str, int]) -> str:
    return f"({', '.join(f'{count} x {fault}' for fault, count in faults.items())})" if faults else ""
