"""How bad a node and its server are."""

import enum

from serf_haproxy.control.report import Report
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.serf.events import FAILED
from serf_haproxy.services import Key

_STARTING_S = 15  # an application may still be starting, and a pass has not seen a new node yet
_PROBLEMS = (State.GRACE, State.HELD, State.LAST, State.DAMPED, State.QUARANTINED)

FAILING = "its health check is good, but most of its requests fail"


class Level(enum.IntEnum):
    """How bad something is; the number is the exit code of `serf-haproxy status`."""

    OK = 0  # as it should be
    WARNING = 1  # requests are answered, and a person should look
    CRITICAL = 2  # requests fail, or changes of the cluster do not reach HAProxy

    @property
    def word(self) -> str:
        """The level in lower case, as JSON has it."""
        return self.name.lower()


def judge_node(report: Report, key: Key, entry: Entry) -> Level:
    """Return how bad what was decided about a node is, and what HAProxy makes of it; never critical by itself."""
    if entry.state in _PROBLEMS:
        return Level.WARNING
    if entry.state is State.GONE:
        file = report.snapshot.files.get(key[1])
        return Level.WARNING if file and file.status == FAILED else Level.OK
    if entry.state is State.IGNORED:
        return Level.WARNING if entry.cause in (Cause.UNNAMED, Cause.IMPROPER) else Level.OK
    return Level.WARNING if find_trouble(report, key, entry) and not _is_starting(report, key, entry) else Level.OK


def find_trouble(report: Report, key: Key, entry: Entry) -> str:
    """Return what HAProxy makes of a server that it should have, where that is not simply good; else ""."""
    if report.servers is None or entry.server is None:
        return ""
    status = report.servers.get(key)
    if status is None:
        return "HAProxy does not have it"
    if status.status.startswith(("MAINT", "DRAIN")):
        return f"{status.status} was set at HAProxy's socket"
    if status.status.startswith(("UP", "no check")):
        return FAILING if status.weight and is_failing(report, key) else ""
    return f"its health check found {status.explain_check()}"


def _is_starting(report: Report, key: Key, entry: Entry) -> bool:
    """Return whether a server is new: no pass has seen its node yet, or its application may still be starting."""
    status = (report.servers or {}).get(key)
    if status is None:
        return entry.since_ns is not None and report.snapshot.at_ns - entry.since_ns < _STARTING_S * 1e9
    is_young = not status.has_been_up and status.status.startswith("DOWN")
    return is_young and status.unchanged_s is not None and status.unchanged_s < _STARTING_S


def is_failing(report: Report, key: Key) -> bool:
    """Return whether most of a server's requests failed lately; that is known with measured weights alone."""
    return report.shares.get(key, {}).get("is_failing") is True


def is_up(status: ServerStatus | None) -> bool:
    """Return whether HAProxy sees a server up, or does not check it."""
    return status is not None and status.status.startswith(("UP", "no check"))
