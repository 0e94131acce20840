"""What balancers tell each other of their load: the text of an answer to the query `lb-demand`. Pure.

    shop 117 shop-4=2 work-ms=203
    api 3

A line for each service that scales: its name, the greatest demand at this balancer in the last second, and its servers
that an order of the autoscaler drains, where that order is in effect, each with the requests that it still has. Beside
them, where it is known, how long a server works at a request on average; a server's name ends with a digit.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_WORK, _MOST = "work-ms", 999_999_999
_LINE = re.compile(r"([a-z][a-z0-9-]{0,30}) ([0-9]{1,9})((?: [a-z0-9-]{1,60}=[0-9]{1,9})*)", re.ASCII)


class Load(NamedTuple):
    """The load of one service at one balancer.

    Attributes:
        demand: Requests in flight or queued.
        drained: Requests in flight by server, of those that get no new ones because an order drains them.
        work_s: How long a server works at a request, on average; None where that is not known.
    """

    demand: int
    drained: Mapping[str, int] = {}
    work_s: float | None = None


def format_loads(loads: Mapping[str, Load]) -> str:
    """Return the text."""
    return "\n".join(" ".join([name, *_list_words(load)]) for name, load in sorted(loads.items()))


def _list_words(load: Load) -> list[str]:
    work = {} if load.work_s is None else {_WORK: min(_MOST, round(1000 * load.work_s))}
    numbers = {**load.drained, **work}
    return [str(load.demand), *(f"{word}={numbers[word]}" for word in sorted(numbers))]


def parse_loads(text: str) -> dict[str, Load]:
    """Return the loads of a text.

    Raises:
        ValueError: It is not such a text, or was cut.
    """
    loads = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{line[:40]!a} is not the load of a service")
        pairs = (pair.split("=") for pair in found[3].split())
        numbers = {word: int(number) for word, number in pairs}
        work_ms = numbers.pop(_WORK, None)
        loads[found[1]] = Load(int(found[2]), numbers, None if work_ms is None else work_ms / 1000)
    return loads
