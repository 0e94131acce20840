"""What HAProxy's `show stat` (Management Guide, section 9.1) tells of the demand for services, and of their servers."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.haproxy.stat import reading

_BACKEND, _SERVER = "1", "2"  # the column `type`
_COLUMNS = ("pxname", "svname", "type", "status", "uweight", "scur", "qcur", "stot")
_UP = ("UP", "no check")
_WAITING = "scale_waiting"  # the template's table of requests that wait until a server is started
_WAITS = re.compile(r"^0x[0-9a-f]+: key=(\S+) .*\bconn_cur=([0-9]+)", re.MULTILINE)


class Row(NamedTuple):
    """A server, as one balancer's HAProxy sees it.

    Attributes:
        is_open: Whether it gets new requests: it is up, with a weight above 0.
        in_flight: Requests, or connections of mode tcp, that it has or that wait for it alone.
        at_work: Those of them that it has.
        started: Those that were ever sent to it; a reload begins anew.
    """

    is_open: bool
    in_flight: int
    at_work: int = 0
    started: int = 0


class Gauge(NamedTuple):
    """The load of one service at one balancer.

    Attributes:
        demand: Requests in flight or queued.
        servers: The servers, by the name of their node.
        work_s: How long a server works at a request, on average; None where that is not known.
    """

    demand: int
    servers: Mapping[str, Row]
    work_s: float | None = None


def ask_for(numbers: Iterable[str], *, has_waits: bool = False) -> str:
    """Return the command that asks for the sections of services and their servers.

    Args:
        numbers: Those of the services' sections, from `haproxy.sections`.
        has_waits: Whether the requests of some wait while there is no server.
    """
    commands = [f"show stat {number} 6 -1" for number in numbers]
    return "; ".join([*commands, f"show table {_WAITING}"] if has_waits else commands)


def read_gauges(answer: str) -> dict[str, Gauge]:
    """Return the load by service.

    Raises:
        HaproxyFault: It is not such an answer.
    """
    rows: dict[str, dict[str, Row]] = {}
    counted: dict[str, int] = {}
    whole: dict[str, int] = {}
    names: list[str] = []
    waiting = {name: int(number) for name, number in _WAITS.findall(answer)}
    listing = "".join(line for line in answer.splitlines(keepends=True) if not line.startswith(("# table", "0x")))
    with reading():
        for fields in csv.reader(io.StringIO(listing, newline="")):
            if fields and fields[0] == "# pxname":
                names = ["pxname", *fields[1:]]
            elif len(fields) > 1 and names:
                row = dict(zip(names, fields, strict=False))
                section, name, kind, status, weight, current, queued, started = (row[column] for column in _COLUMNS)
                in_flight = int(current or 0) + int(queued or 0)
                counted[section] = counted.get(section, 0) + (in_flight if kind == _SERVER else int(queued or 0))
                if kind == _SERVER:
                    is_open = status.startswith(_UP) and int(weight or 0) > 0
                    rows.setdefault(section, {})[name] = Row(is_open, in_flight, int(current or 0), int(started or 0))
                elif kind == _BACKEND:
                    whole[section] = int(current or 0)  # those that wait in it are among them
    # A request that has waited is counted in both until its end.
    return {name: Gauge(max(whole[name], counted[name], waiting.get(name, 0)), rows.get(name, {})) for name in whole}
