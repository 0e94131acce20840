"""What HAProxy says in `show stat` (its Management Guide, section 9.1): its view of each server."""

import contextlib
import csv
import io
import operator
from collections.abc import Iterator
from typing import NamedTuple

from serf_haproxy.errors import HaproxyFault
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import SUCCESSOR, Key

_COLUMNS = (
    *("pxname", "svname", "mode", "status", "addr", "check_status", "check_code", "last_chk", "check_desc", "chkfail"),
    *("weight", "scur", "stot", "lastchg", "rtime", "ctime"),
)


class ServerStatus(NamedTuple):
    """A server's row of `show stat`.

    Attributes:
        status: For example UP, DOWN, "UP 1/3", DRAIN, MAINT, "no check".
        address: Address and port.
        check: Result of the last health check, for example L7OK, L7STS, L4CON.
        code: The status code of its answer, "" without one.
        text: What the server or the kernel said, printable; where HAProxy has no such text, its words for the result.
            It has none after a timeout, and none while the next check is under way.
        has_been_up: Whether the worker has seen it up.
        weight: The weight in use, None where HAProxy does not say.
        session_count: Requests and connections that it handles now.
        total_count: Those that it has got since the worker started.
        unchanged_s: Time since its status last changed, seconds; None where HAProxy does not say.
        response_ms: Mean time that its last 1024 requests took to be answered; with TCP, to connect. None where HAProxy
            does not say.
    """

    status: str
    address: str
    check: str
    code: str = ""
    text: str = ""
    has_been_up: bool = True
    weight: int | None = None
    session_count: int = 0
    total_count: int = 0
    unchanged_s: int | None = None
    response_ms: int | None = None

    def explain_check(self) -> str:
        """Return the last health check's result, code and text."""
        return " ".join(part for part in (self.check or "unchecked", self.code, self.text) if part)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Raise a HaproxyFault where a block finds that HAProxy's statistics are not what they should be."""
    try:
        yield
    except (csv.Error, ValueError, TypeError, LookupError) as error:
        raise HaproxyFault(f"HAProxy's statistics cannot be read: {printable(str(error), 100)}") from error


def read_stat(answer: str) -> dict[Key, ServerStatus]:
    """Return the status of every server by section and name.

    Raises:
        HaproxyFault: It is not such an answer.
    """
    with reading():
        names, *rows = csv.reader(io.StringIO(answer.removeprefix("# "), newline=""))
        choose = operator.itemgetter(*map(names.index, _COLUMNS))
        found = (choose(row) for row in rows if len(row) == len(names))
        return {
            (section, name): _read_row(mode, status, *rest)
            for section, name, mode, status, *rest in found
            if name and status and section != SUCCESSOR
        }


def _read_row(mode: str, status: str, address: str, check: str, code: str, *rest: str) -> ServerStatus:
    said, meaning, failed, weight, current, total, unchanged, response, connect = rest
    is_up = status.startswith(("UP", "NOLB", "DRAIN"))
    # Only failures of a server that is up are counted as failed checks.
    return ServerStatus(
        status,
        address,
        check.removeprefix("* "),  # an asterisk: one is under way
        code,
        printable(said or meaning, 100),
        is_up or failed not in ("0", ""),
        _read_count(weight),
        _read_count(current) or 0,
        _read_count(total) or 0,
        _read_count(unchanged),
        _read_count(response if mode == "http" else connect),
    )


def _read_count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 19 else None
