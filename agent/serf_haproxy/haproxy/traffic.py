"""What HAProxy's `show stat` (Management Guide, section 9.1) tells of the requests of each server."""

import csv
import io
import operator
from typing import NamedTuple

from serf_haproxy.haproxy.stat import reading
from serf_haproxy.services import Key

_TEXTS = ("mode", "status", "uweight", "bck")
_COUNTS = ("scur", "qcur", "stot", "req_tot", "hrsp_5xx", "econ", "eresp", "wretr", "wredis", "ctime")
_COLUMNS = ("pxname", "svname", *_TEXTS, *_COUNTS)


class Traffic(NamedTuple):
    """A server's counters. All but the first six only grow, until a reload or a restart of HAProxy begins anew.

    Attributes:
        weight: The weight in use, 0 to 256.
        is_http: Whether its section speaks HTTP.
        is_up: Whether its health checks let it have requests.
        is_backup: Whether it serves only while no other server is up.
        current_count: Requests, or connections of mode tcp, at the server at this moment.
        connect_ms: The mean time that its last 512 connections took to be accepted.
        started_count: Requests, or connections of mode tcp, that were sent to it, repeated ones included.
        answered_count: Answers of which the head has arrived.
        broken_count: Those sent to it that got no answer, or could not connect.
        failed_count: The same, even where another server then answered, and answers with a status of 500 or more.
    """

    weight: int
    is_http: bool
    is_up: bool
    is_backup: bool
    current_count: int
    connect_ms: int
    started_count: int
    answered_count: int
    broken_count: int
    failed_count: int


def ask_for(number: str) -> str:
    """Return the command that asks for the servers of a section; its number is that of `sections`."""
    return f"show stat {number} 4 -1"


def read_traffic(answer: str) -> dict[Key, Traffic]:
    """Return the counters of every server by section and name; one answer may follow another.

    Raises:
        HaproxyFault: It is not such an answer.
    """
    traffic: dict[Key, Traffic] = {}
    choose = None
    with reading():
        for row in csv.reader(io.StringIO(answer, newline="")):
            if row and row[0] == "# pxname":
                names = ["pxname", *row[1:]]
                choose = operator.itemgetter(*map(names.index, _COLUMNS))
            elif len(row) > 1 and choose:
                section, name, *values = choose(row)
                traffic[section, name] = _read_row(*values)
    return traffic


def _read_row(mode: str, status: str, weight: str, backup: str, *counts: str) -> Traffic:
    current, queued, started, answered, failed, connect, broken, retried, moved, connect_ms = map(_read_count, counts)
    # A refused connection is repeated elsewhere, so that no client sees it: it is counted in `wredis` or `wretr` alone.
    errors = connect + broken + retried + moved
    return Traffic(
        _read_count(weight),
        mode == "http",
        status.startswith(("UP", "no check", "NOLB")),
        backup == "1",
        current + queued,
        connect_ms,
        started,
        answered,
        errors,
        errors + failed,
    )


def _read_count(text: str) -> int:
    return int(text or 0)
