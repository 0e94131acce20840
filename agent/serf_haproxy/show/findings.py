"""What is not as it should be beside single nodes: each with its level and the remedy. Nothing else judges."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from serf_haproxy.control.answers import DOWN, FROZEN, UP
from serf_haproxy.control.conclude import list_conditions
from serf_haproxy.control.outcome import ALONE, DIFFERS, HELD, LAST, PAUSED, SPLIT, Condition, Verdict
from serf_haproxy.control.outcome import FROZEN as FROZEN_WORKER
from serf_haproxy.control.report import Report
from serf_haproxy.policy.claim import ADDRESS_TAG
from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.serf.printing import quoted
from serf_haproxy.services import Key
from serf_haproxy.services.service import Service
from serf_haproxy.settings import DEFAULT_FILE, variable
from serf_haproxy.show.levels import Level, is_failing, is_up, judge_node
from serf_haproxy.show.page import find_remedy

_CORRECT = "correct it"
_ASK = "run the command as the daemon's user"
_REMEDIES = {  # of conditions, and whether their reasons say it
    HELD: ("`serf-haproxy release`, if they are lost indeed", True),
    LAST: ("start another node, or repair one", False),
    ALONE: ("see whether the names in SERF_JOIN lead to the cluster", True),
    FROZEN_WORKER: ("look at HAProxy's log, and restart it if it stays so", False),
    DIFFERS: ("look for another program that changes servers", False),
    SPLIT: ("start a node of that version, or change `split`", False),
    PAUSED: ("`serf-haproxy resume`, when the work is done", True),
}
_UNKNOWN = ("look at the daemon's log", True)
_DECIDED = (HELD, LAST, ALONE, SPLIT, PAUSED)
_CRITICAL = (ALONE, FROZEN_WORKER)
_START_S = 10.0  # within this the daemon's web process has started


class Finding(NamedTuple):
    """Something that is not as it should be, other than a node.

    Attributes:
        level: How bad it is.
        subject: What it is about, one or two words.
        what: What is wrong.
        remedy: What to do, for one line.
        is_whole: Whether `what` says what to do, too.
    """

    level: Level
    subject: str
    what: str
    remedy: str
    is_whole: bool = False

    @property
    def text(self) -> str:
        """What is wrong, and the remedy."""
        return self.what if self.is_whole else f"{self.what}; {self.remedy}"


def judge_report(report: Report) -> Level:
    """Return the worst level of all findings and nodes."""
    nodes = (judge_node(report, key, entry) for key, entry in report.decision.entries.items())
    return judge_whole(report, list_findings(report), nodes)


def judge_whole(report: Report, findings: Iterable[Finding], nodes: Iterable[Level]) -> Level:
    """Return the worst level of findings, of nodes, and of the members that cannot have a node file."""
    refused = (Level.WARNING for _ in report.record.refused)
    return max((*(finding.level for finding in findings), *nodes, *refused), default=Level.OK)


def list_findings(report: Report) -> list[Finding]:
    """Return what is not as it should be beside single nodes, the worst first."""
    found = [
        *_judge_programs(report),
        *_judge_settings(report),
        *_judge_services(report),
        *_judge_pass(report),
        *_judge_files(report),
    ]
    return sorted(found, key=lambda finding: -finding.level)


def _judge_files(report: Report) -> Iterator[Finding]:
    for fault in report.snapshot.services.faults:
        yield Finding(Level.WARNING, "services file", fault, _CORRECT, is_whole=True)
    for fault in report.record.certificate_faults:
        yield Finding(Level.WARNING, "certificates", str(fault), _CORRECT, is_whole=True)
    for stray in report.snapshot.strays:
        what = f"the file {quoted(stray.name)} is ignored: {stray.reason}"
        yield Finding(Level.WARNING, "node directory", what, "remove the file")


def find_conditions(report: Report) -> tuple[Condition, ...]:
    """Return the conditions that follow from the decision now, and those that acting found in the last pass."""
    acted = (condition for condition in report.record.read_conditions() if condition.name not in _DECIDED)
    return (*acted, *list_conditions(report.snapshot, report.decision, report.record))


def _judge_programs(report: Report) -> Iterator[Finding]:
    serf, haproxy = report.serf, report.haproxy
    if serf.state in (DOWN, FROZEN):
        how = "start" if serf.state == DOWN else "restart"
        remedy = f"{how} the Serf agent: until then no change is heard"
        yield Finding(Level.CRITICAL, "Serf", serf.fault, remedy)
    elif serf.fault:
        yield Finding(Level.OK, "Serf", serf.fault, _ASK, is_whole=True)
    if haproxy.state == DOWN:
        yield Finding(Level.CRITICAL, "HAProxy", haproxy.fault, "start it: until then every request fails")
    elif haproxy.state == FROZEN:
        remedy = "look at its log, and restart it if it stays so"
        yield Finding(Level.CRITICAL, "HAProxy", f"{haproxy.fault}: it may be frozen", remedy)
    elif haproxy.fault:
        yield Finding(Level.OK, "HAProxy", haproxy.fault, _ASK, is_whole=True)
    elif report.is_master_silent:
        what = "it does not answer, so HAProxy cannot be reloaded, and a worker that ends is not replaced"
        yield Finding(Level.WARNING, "HAProxy's master", what, "look at its log, and restart HAProxy if it stays so")
    if report.daemon.state in (DOWN, FROZEN):
        how = "start `serf-haproxy run`, or its s6 service"
        remedy = how if report.daemon.state == DOWN else "continue it with `kill -CONT`, or restart it"
        what = f"{report.daemon.fault}, so no change of the cluster reaches HAProxy"
        yield Finding(Level.CRITICAL, "daemon", what, remedy)
    elif report.page.state == FROZEN or (report.page.state == DOWN and _has_settled(report)):
        what = f"{report.page.fault}; there is no page, and no alert hears of this balancer"
        yield Finding(Level.WARNING, "web process", what, find_remedy(report.page))
    if report.standby:
        what = f"{report.standby}; traffic should go to another balancer"
        yield Finding(Level.WARNING, "standby", what, "`serf-haproxy standby off` ends a standby")


def _has_settled(report: Report) -> bool:
    """Return whether the daemon has run for so long that its web process should, too."""
    return report.daemon.age_s is None or report.daemon.age_s > _START_S


def _judge_settings(report: Report) -> Iterator[Finding]:
    """Compare the settings of the last pass with those of this command, which may come from another environment."""
    there, here = report.record.settings, report.settings.describe()
    if there and there != here:  # a record of the previous release has none
        names = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
        shown = ", ".join(f"{name}={there.get(name, 'default')}" for name in names[:3])
        more = f" and {len(names) - 3} more" if names[3:] else ""
        how = f"put them into {DEFAULT_FILE}, where both read them"
        yield Finding(Level.WARNING, "settings", f"the last pass had others than this command: {shown}{more}", how)


def _judge_services(report: Report) -> Iterator[Finding]:
    names = [service.name for service in report.snapshot.services.listed]
    entries: dict[str, dict[Key, Entry]] = {name: {} for name in names}
    for key, entry in report.decision.entries.items():
        if key[0] in entries and entry.state is not State.IGNORED:
            entries[key[0]][key] = entry
    if not any(entries.values()):
        yield Finding(Level.WARNING, "cluster", "no node is known that serves", "start one with the tag role=web")
    for service in report.snapshot.services.listed:
        if entries[service.name]:
            yield from _judge_service(report, service, entries[service.name])
            yield from _judge_places(report, service, entries[service.name])


def _judge_places(report: Report, service: Service, entries: dict[Key, Entry]) -> Iterator[Finding]:
    """Tell of members that are one server because a tag `addr` says so: each has its share of the requests."""
    places: dict[str, list[str]] = {}
    for key, entry in entries.items():
        if entry.server is not None and entry.server.weight != 0:
            places.setdefault(entry.server.endpoint, []).append(key[1])
    for place, names in sorted(places.items()):
        files = [file for name in names if (file := report.snapshot.files.get(name))]
        if len(names) > 1 and any(ADDRESS_TAG in file.member.tag_values() for file in files):
            shown = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            what = f"{shown} are one server, {place}, which gets the share of {len(names)}"
            yield Finding(Level.WARNING, f"service {service.name}", what, "stop all but one of these nodes")


def _judge_service(report: Report, service: Service, entries: dict[Key, Entry]) -> Iterator[Finding]:
    wanted = [key for key, entry in entries.items() if entry.server]
    if not wanted:
        what = f"none of its {len(entries)} nodes can serve, so every request to it fails"
        remedy = "`serf-haproxy explain NODE` of one of them says why"
        yield Finding(Level.CRITICAL, f"service {service.name}", what, remedy)
    elif report.servers is not None and not any(is_up(report.servers.get(key)) for key in wanted):
        what = f"{'its only server' if len(wanted) == 1 else f'each of its {len(wanted)} servers'} is down"
        key = next((key for key in wanted if key in report.servers), None)
        check = f"; the health check of {key[1]} found {report.servers[key].explain_check()}" if key else ""
        what = f"{what}, so every request to it fails{check}"
        remedy = "`serf-haproxy explain NODE` of one of its nodes; does the application answer at its port and path?"
        yield Finding(Level.CRITICAL, f"service {service.name}", what, remedy)
    elif report.servers is not None and all(
        is_failing(report, key) for key in wanted if is_up(report.servers.get(key))
    ):
        what = "its only server" if len(wanted) == 1 else "every server that is up"
        what = f"most requests to {what} fail"
        yield Finding(Level.CRITICAL, f"service {service.name}", what, "look at the application's log")


def _judge_pass(report: Report) -> Iterator[Finding]:
    record, settings = report.record, report.settings
    what = f"{record.verdict}: {record.reason}"
    if record.verdict == Verdict.UNCONFIRMED:
        remedy = "look at HAProxy's log: does it run, and is a port in use?"
        yield Finding(Level.CRITICAL, "last pass", what, remedy)
    elif record.verdict == Verdict.REJECTED:
        yield Finding(Level.WARNING, "last pass", what, "`serf-haproxy check`, and repair the template")
    patience_s = 2 * settings.resync_interval_s + settings.check_timeout_s + settings.reload_timeout_s
    age_s = report.at_s - record.at_s
    if report.daemon.state == UP and not report.serf.fault and record.at_s and age_s > patience_s:
        what = f"it has ended no pass for {age_s:.0f} s"
        yield Finding(Level.CRITICAL, "daemon", what, "look at its log, and restart it")
    for condition in find_conditions(report):
        level = Level.CRITICAL if condition.name in _CRITICAL else Level.WARNING
        remedy, is_told = _REMEDIES.get(condition.name, _UNKNOWN)
        yield Finding(level, condition.name, condition.reason, remedy, is_told)
    old, most = report.old_workers, settings.old_workers_max + 1
    if old and old.worker_count > most:
        what = f"{old.worker_count} hold {old.memory_bytes / 2**20:.0f} MiB, {settings.old_workers_max} are allowed"
        yield Finding(Level.WARNING, "old workers", what, f"make {variable('hard_stop_after_s')} shorter")
