"""The report: snapshot, decision, HAProxy's view and the last outcome. The one source of all that is shown."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from serf_haproxy.control.conclude import is_unfit, list_conditions
from serf_haproxy.control.outcome import ALONE, HELD, LAST, SPLIT, Condition
from serf_haproxy.control.preview import preview
from serf_haproxy.control.record import Record
from serf_haproxy.control.shares import locate_shares, read_shares
from serf_haproxy.haproxy import workers
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.haproxy.workers import OldWorkers
from serf_haproxy.policy.claim import read_claim
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import Member, unescape
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import DEFAULT_SERVICE, Key
from serf_haproxy.services.service import Service
from serf_haproxy.settings import Settings
from serf_haproxy.system.locks import is_locked

_CELL, _LINE = 128, 16384  # characters
_COLUMNS = ("name", "status", "state", "address", "port", "role", "evidence", "in_haproxy", "health")


class Report(NamedTuple):
    """What there is to know about a balancer.

    Attributes:
        snapshot: What was read.
        decision: What follows from it: what a pass without Serf's roster would decide.
        record: What the last pass left behind.
        servers: HAProxy's status of each server, by service and node; None when HAProxy does not answer.
        is_daemon_running: Whether the daemon runs; None when this user may not know.
        old_workers: HAProxy's old workers; None when the master does not answer.
        shares: What servers with measured weights get, and why (`control.shares`).
    """

    snapshot: Snapshot
    decision: Decision
    record: Record
    servers: Mapping[Key, ServerStatus] | None
    is_daemon_running: bool | None
    old_workers: OldWorkers | None
    shares: Mapping[Key, dict[str, Any]] = {}


def read_report(settings: Settings) -> Report:
    """Observe and decide as a pass does, without acting.

    Raises:
        SystemFault: The node directory or the published configuration cannot be read.
    """
    nodes.check_dir(settings.nodes_dir)
    edges, record, snapshot, decision, _ = preview(settings, is_only_shown=True)
    rows, places = edges.runtime.read_status(), snapshot.view.places
    return Report(
        snapshot,
        decision,
        record,
        None if rows is None else {key: rows[place] for key, place in places.items() if place in rows},
        is_locked(edges.state.daemon_lock_path) or is_locked(edges.state.former_lock_path),
        workers.measure_old(edges.master),
        read_shares(locate_shares(settings)) if snapshot.services.measured else {},
    )


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON has it.

    Returns:
        verdict, reason, conditions and digest of the last pass, when it was and how long it took, whether the daemon
        and HAProxy answer, `services` by name, the faults of the services file, and `members`: for each service and
        node a map with the columns of the table and more.
    """
    record = report.record
    members = [_describe_node(report, key, entry) for key, entry in report.decision.entries.items()]
    members += [_describe_refused(name, reason) for name, reason in record.refused.items()]
    return {
        "verdict": record.verdict,
        "reason": record.reason,
        "conditions": [one._asdict() for one in _find_conditions(report)],
        "digest": record.digest,
        "at_s": record.at_s,
        "took_s": record.took_s,
        "changed_at_s": record.changed_at_s,
        "self_name": record.self_name,
        "daemon_runs": report.is_daemon_running,
        "resident_runs": report.is_daemon_running,  # deprecated: the name of the previous release
        "haproxy_answers": report.servers is not None,
        "old_workers": report.old_workers._asdict() if report.old_workers else None,
        "services": {service.name: _describe_service(report, service) for service in report.snapshot.services.listed},
        "service_faults": list(report.snapshot.services.faults),
        "certificate_faults": [str(fault) for fault in record.certificate_faults],
        "members": members,
        "strays": {printable(stray.name): printable(stray.reason) for stray in report.snapshot.strays},
    }


def format_table(report: Report) -> str:
    """Return the report as a table for people."""
    status = to_json(report)
    is_one = all(member["service"] in (None, DEFAULT_SERVICE) for member in status["members"])
    columns = _COLUMNS if is_one and len(status["services"]) < 2 else ("service", *_COLUMNS)
    rows: list[tuple[str, ...]] = [(*columns, "note")]
    rows += [(*(_format_cell(member[column]) for column in columns), _note(member)) for member in status["members"]]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not status["members"]:
        lines = ["no node is known"]
    lines += [f"ignored file {name}: {reason}" for name, reason in status["strays"].items()]
    if len(status["services"]) > 1:
        lines += ["", *(_format_service(name, one) for name, one in status["services"].items())]
    lines += status["service_faults"] + status["certificate_faults"]
    ago_s = time.time() - status["at_s"]
    verdict = f"{status['verdict']} {ago_s:.0f} s ago" if status["verdict"] else "no verdict"
    lines += ["", f"last pass: {verdict}: {status['reason']}"]
    lines += [f"{condition['name']}: {condition['reason']}" for condition in status["conditions"]]
    if status["daemon_runs"] is False:
        lines.append("the daemon does not run: events are written to node files, which wait for it")
    if not status["haproxy_answers"]:
        lines.append("HAProxy does not answer on its sockets")
    old = status["old_workers"]
    if old and old["worker_count"]:
        size = f"{old['memory_bytes'] / 2**20:.0f} MiB, the oldest for {old['oldest_s']:.0f} s"
        lines.append(f"{old['worker_count']} old workers finish their connections: {size}")
    return "\n".join(printable(line, _LINE) for line in lines)


def _describe_node(report: Report, key: Key, entry: Entry) -> dict[str, Any]:
    service, name = key
    file = report.snapshot.files.get(name) or _make_file(name, entry)
    servers = report.servers or {}
    left_s = None if entry.until_ns is None else max(0.0, (entry.until_ns - report.snapshot.at_ns) / 1e9)
    return {
        "name": name,
        "service": service,
        "status": file.status,
        "state": entry.state.value,
        "reason": entry.reason,
        "since_s": None if entry.since_ns is None else entry.since_ns / 1e9,
        "left_s": left_s,
        "address": unescape(file.member.address) if entry.server else file.member.address,
        "port": entry.server.port if entry.server else _find_port(report, service, file.member),
        "version": entry.server.version if entry.server else "",
        "is_backup": bool(entry.server and entry.server.is_backup),
        "measured": report.shares.get(key),
        "role": file.member.role,
        "evidence": "roster" if report.record.from_roster.get(name) == file.mtime_ns else "event",
        "in_haproxy": key in servers,
        "health": _format_health(servers.get(key)),
        "quarantined": entry.reason if is_unfit(report.decision, key, file) else None,
        "held_s": left_s if entry.state is State.HELD else None,
        "damped_s": left_s if entry.state is State.DAMPED else None,
    }


def _describe_service(report: Report, service: Service) -> dict[str, Any]:
    entries = {key: entry for key, entry in report.decision.entries.items() if key[0] == service.name}
    servers = report.servers or {}
    return {
        "mode": service.mode,
        "is_announced": service.name in report.snapshot.services.announced.seen_s,
        "routes": list(service.routes),
        "bind": service.bind,
        "balance": service.balance,
        "split": dict(service.shares),
        "table": report.snapshot.peers.said if service.stick else None,
        "node_counts": dict(Counter(entry.state.value for entry in entries.values())),
        "server_count": sum(entry.server is not None for entry in entries.values()),
        "up_count": sum(key in servers and servers[key].status.startswith("UP") for key in entries),
    }


def _format_service(name: str, service: dict[str, Any]) -> str:
    where = service["bind"] or ", ".join(service["routes"]) or "all other requests"
    where += ", announced by members" if service["is_announced"] else ""
    count = f"{service['up_count']} of {service['server_count']} servers are up"
    table = f"; its table of clients is {service['table']}" if service["table"] else ""
    return f"service {name} ({service['mode']}, {where}): {count}{table}"


def _make_file(name: str, entry: Entry) -> NodeFile:
    """Return a stand-in for the node file of a server whose node file is gone."""
    return NodeFile("", Member(name, entry.server.address if entry.server else "", "", ()), 0)


def _describe_refused(name: str, reason: str) -> dict[str, Any]:
    empty = dict.fromkeys((*_COLUMNS, "service", "since_s", "left_s", "held_s", "damped_s", "version"))
    state = State.QUARANTINED.value
    known = {"name": name, "state": state, "reason": reason, "quarantined": reason}
    return empty | known | {"evidence": "roster", "in_haproxy": False}


def _find_conditions(report: Report) -> tuple[Condition, ...]:
    """Return the conditions that follow from the decision now, and those that acting found in the last pass."""
    decided = (HELD, LAST, ALONE, SPLIT)
    acted = (condition for condition in report.record.read_conditions() if condition.name not in decided)
    return (*acted, *list_conditions(report.snapshot, report.decision, report.record))


def _note(member: dict[str, Any]) -> str:
    """Return why a node is not simply serving, and for how long."""
    if member["state"] == State.SERVING.value:
        return "-"
    left = "" if member["left_s"] is None else f", for {member['left_s']:.0f} s more"
    return f"{member['reason']}{left}"


def _format_health(status: ServerStatus | None) -> str | None:
    """Return HAProxy's word for a server's state, with the last check's result while it is not simply UP."""
    if status is None:
        return None
    return "UP" if status.status == "UP" else f"{status.status} ({status.explain_check()})"


def _find_port(report: Report, service: str, member: Member) -> int | None:
    """Return the port that a node announces; None where it announces none, or has a wrong tag."""
    is_named = report.snapshot.rules.are_named or service != DEFAULT_SERVICE
    try:
        return read_claim(member, service, is_named).port
    except ValueError:
        return None


def _format_cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else printable(str(value), _CELL)
