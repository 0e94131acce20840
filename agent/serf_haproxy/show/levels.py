"""How bad it is: a level and one line for all that is not as it should be. Nothing else judges."""

import enum
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from serf_haproxy.control.answers import DOWN, FROZEN
from serf_haproxy.control.conclude import list_conditions
from serf_haproxy.control.outcome import ALONE, HELD, LAST, PAUSED, SPLIT, Condition, Verdict
from serf_haproxy.control.outcome import FROZEN as FROZEN_WORKER
from serf_haproxy.control.report import Report
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.serf.events import FAILED
from serf_haproxy.serf.printing import quoted
from serf_haproxy.services import Key
from serf_haproxy.services.service import Service
from serf_haproxy.settings import DEFAULT_FILE

_DECIDED = (HELD, LAST, ALONE, SPLIT, PAUSED)
_CRITICAL = (ALONE, FROZEN_WORKER)
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


class Finding(NamedTuple):
    """Something that is not as it should be, other than a node.

    Attributes:
        level: How bad it is.
        subject: What it is about, one or two words.
        text: What is wrong, and the remedy.
    """

    level: Level
    subject: str
    text: str


def judge_report(report: Report) -> Level:
    """Return the worst level of all findings and nodes."""
    nodes = (judge_node(report, key, entry) for key, entry in report.decision.entries.items())
    return judge_whole(report, list_findings(report), nodes)


def judge_whole(report: Report, findings: Iterable[Finding], nodes: Iterable[Level]) -> Level:
    """Return the worst level of findings, of nodes, and of the members that cannot have a node file."""
    refused = (Level.WARNING for _ in report.record.refused)
    return max((*(finding.level for finding in findings), *nodes, *refused), default=Level.OK)


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


def list_findings(report: Report) -> list[Finding]:
    """Return what is not as it should be beside single nodes, the worst first."""
    found = [
        *_judge_programs(report),
        *_judge_settings(report),
        *_judge_services(report),
        *_judge_pass(report),
        *(Finding(Level.WARNING, "services file", fault) for fault in report.snapshot.services.faults),
        *(Finding(Level.WARNING, "certificates", str(fault)) for fault in report.record.certificate_faults),
        *(
            Finding(Level.WARNING, "node directory", f"the file {quoted(stray.name)} is ignored: {stray.reason}")
            for stray in report.snapshot.strays
        ),
    ]
    return sorted(found, key=lambda finding: -finding.level)


def find_conditions(report: Report) -> tuple[Condition, ...]:
    """Return the conditions that follow from the decision now, and those that acting found in the last pass."""
    acted = (condition for condition in report.record.read_conditions() if condition.name not in _DECIDED)
    return (*acted, *list_conditions(report.snapshot, report.decision, report.record))


def _judge_programs(report: Report) -> Iterator[Finding]:
    serf, haproxy = report.serf, report.haproxy
    if serf.state == DOWN:
        yield Finding(Level.CRITICAL, "Serf", f"{serf.fault}; start the Serf agent: until then no change is heard")
    elif serf.state == FROZEN:
        yield Finding(Level.CRITICAL, "Serf", f"{serf.fault}; restart the Serf agent: until then no change is heard")
    elif serf.fault:
        yield Finding(Level.OK, "Serf", serf.fault)
    if haproxy.state == DOWN:
        yield Finding(Level.CRITICAL, "HAProxy", f"{haproxy.fault}; start it: until then every request fails")
    elif haproxy.state == FROZEN:
        remedy = "look at its log, and restart it if it stays so"
        yield Finding(Level.CRITICAL, "HAProxy", f"{haproxy.fault}: it may be frozen; {remedy}")
    elif haproxy.fault:
        yield Finding(Level.OK, "HAProxy", haproxy.fault)
    if report.is_daemon_running is False:
        how = "start `serf-haproxy run`, or its s6 service"
        yield Finding(Level.CRITICAL, "daemon", f"it does not run, so no change of the cluster reaches HAProxy; {how}")
    if report.standby:
        how = "`serf-haproxy standby off` ends a standby"
        yield Finding(Level.WARNING, "standby", f"{report.standby}; traffic should go to another balancer; {how}")


def _judge_settings(report: Report) -> Iterator[Finding]:
    """Compare the settings of the last pass with those of this command, which may come from another environment."""
    there, here = report.record.settings, report.settings.describe()
    if there and there != here:  # a record of the previous release has none
        names = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
        shown = ", ".join(f"{name}={there.get(name, 'default')}" for name in names[:3])
        more = f" and {len(names) - 3} more" if names[3:] else ""
        how = f"put them into {DEFAULT_FILE}, where both read them"
        yield Finding(Level.WARNING, "settings", f"the last pass had others than this command: {shown}{more}; {how}")


def _judge_services(report: Report) -> Iterator[Finding]:
    names = [service.name for service in report.snapshot.services.listed]
    entries: dict[str, dict[Key, Entry]] = {name: {} for name in names}
    for key, entry in report.decision.entries.items():
        if key[0] in entries and entry.state is not State.IGNORED:
            entries[key[0]][key] = entry
    if not any(entries.values()):
        yield Finding(Level.WARNING, "cluster", "no node is known that serves; start one with the tag role=web")
    for service in report.snapshot.services.listed:
        if entries[service.name]:
            yield from _judge_service(report, service, entries[service.name])


def _judge_service(report: Report, service: Service, entries: dict[Key, Entry]) -> Iterator[Finding]:
    wanted = [key for key, entry in entries.items() if entry.server]
    if not wanted:
        text = f"none of its {len(entries)} nodes can serve, so every request to it fails; see the reason of each"
        yield Finding(Level.CRITICAL, f"service {service.name}", text)
    elif report.servers is not None and not any(is_up(report.servers.get(key)) for key in wanted):
        what = f"{'its only server' if len(wanted) == 1 else f'each of its {len(wanted)} servers'} is down"
        key = next((key for key in wanted if key in report.servers), None)
        check = f"; the health check of {key[1]} found {report.servers[key].explain_check()}" if key else ""
        yield Finding(Level.CRITICAL, f"service {service.name}", f"{what}, so every request to it fails{check}")
    elif report.servers is not None and all(
        is_failing(report, key) for key in wanted if is_up(report.servers.get(key))
    ):
        what = "its only server" if len(wanted) == 1 else "every server that is up"
        yield Finding(Level.CRITICAL, f"service {service.name}", f"most requests to {what} fail; see its log")


def _judge_pass(report: Report) -> Iterator[Finding]:
    record, settings = report.record, report.settings
    if record.verdict == Verdict.UNCONFIRMED:
        yield Finding(Level.CRITICAL, "last pass", f"{record.verdict}: {record.reason}")
    elif record.verdict == Verdict.REJECTED:
        yield Finding(Level.WARNING, "last pass", f"{record.verdict}: {record.reason}")
    patience_s = 2 * settings.resync_interval_s + settings.check_timeout_s + settings.reload_timeout_s
    age_s = report.at_s - record.at_s
    if report.is_daemon_running and not report.serf.fault and record.at_s and age_s > patience_s:
        text = f"it has ended no pass for {age_s:.0f} s; look at its log, and restart it"
        yield Finding(Level.CRITICAL, "daemon", text)
    for condition in find_conditions(report):
        level = Level.CRITICAL if condition.name in _CRITICAL else Level.WARNING
        yield Finding(level, condition.name, condition.reason)
    old, most = report.old_workers, settings.old_workers_max + 1
    if old and old.worker_count > most:
        text = f"{old.worker_count} hold {old.memory_bytes / 2**20:.0f} MiB, {settings.old_workers_max} are allowed"
        yield Finding(Level.WARNING, "old workers", text)
