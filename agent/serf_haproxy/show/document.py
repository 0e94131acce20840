"""The report as JSON has it: `serf-haproxy status --json`. What it promises is in docs/reference/status.md."""

from collections import Counter
from typing import Any

from serf_haproxy.control.conclude import is_unfit
from serf_haproxy.control.report import Report
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.claim import ADDRESS_TAG, read_claim
from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.serf.events import Member, unescape
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import DEFAULT_SERVICE, Key
from serf_haproxy.services.service import Service
from serf_haproxy.show.findings import Finding, find_conditions, judge_whole, list_findings
from serf_haproxy.show.levels import Level, find_trouble, is_up, judge_node

VERSION = 1

_ABSENT = (
    "measured",
    *(
        "service",
        "status",
        "address",
        "port",
        "role",
        "version",
        "since_s",
        "left_s",
        "check",
        "weight",
        "wanted_weight",
    ),
    *("health", "held_s", "damped_s"),
)


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON has it, version 1."""
    record, decision = report.record, report.decision
    members = [describe_node(report, key, entry) for key, entry in decision.entries.items()]
    findings = list_findings(report)
    level = judge_whole(report, findings, (Level[one["level"].upper()] for one in members))
    members += [describe_refused(name, reason) for name, reason in record.refused.items()]
    servers = report.servers
    return {
        "version": VERSION,
        "level": level.word,
        "findings": [_describe_finding(one) for one in findings],
        "at_s": record.at_s,
        "read_at_s": report.at_s,
        "server_count": len(decision.servers),
        "up_count": None if servers is None else sum(is_up(servers.get(one.key)) for one in decision.servers),
        "serf": report.serf._asdict() | {"heard_at_s": record.heard_at_s or None},
        "haproxy": report.haproxy._asdict(),
        "daemon": {
            "state": report.daemon.state,
            "fault": report.daemon.fault,
            "runs": report.is_daemon_running,
            "passed_at_s": record.at_s or None,
        },
        "verdict": record.verdict,
        "reason": record.reason,
        "conditions": [one._asdict() for one in find_conditions(report)],
        "orders": [order._asdict() for order in report.snapshot.orders.list_lasting()],
        "digest": record.digest,
        "took_s": record.took_s,
        "changed_at_s": record.changed_at_s,
        "self_name": record.self_name,
        "old_workers": report.old_workers._asdict() if report.old_workers else None,
        "services": {service.name: _describe_service(report, service) for service in report.snapshot.services.listed},
        "service_faults": list(report.snapshot.services.faults),
        "certificate_faults": [str(fault) for fault in record.certificate_faults],
        "members": members,
        "strays": {printable(stray.name): printable(stray.reason) for stray in report.snapshot.strays},
        # Names of previous releases, which go with the next one.
        "daemon_runs": report.is_daemon_running,
        "resident_runs": report.is_daemon_running,
        "haproxy_answers": servers is not None,
    }


def _describe_finding(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level.word,
        "subject": finding.subject,
        "text": printable(finding.text),
        "remedy": printable(finding.remedy),
    }


def describe_node(report: Report, key: Key, entry: Entry) -> dict[str, Any]:
    """Return what there is to know about a node in a service."""
    service, name = key
    file = report.snapshot.files.get(name) or _make_file(name, entry)
    status = (report.servers or {}).get(key)
    left_s = None if entry.until_ns is None else max(0.0, (entry.until_ns - report.snapshot.at_ns) / 1e9)
    return {
        "name": name,
        "service": service,
        "level": judge_node(report, key, entry).word,
        "status": file.status,
        "state": entry.state.value,
        "cause": entry.cause.value,
        "reason": entry.reason,
        "trouble": find_trouble(report, key, entry),
        "since_s": None if entry.since_ns is None else entry.since_ns / 1e9,
        "left_s": left_s,
        "address": _find_address(file.member, entry),
        "port": entry.server.port if entry.server else _find_port(report, service, file.member),
        "version": entry.server.version if entry.server else "",
        "is_backup": bool(entry.server and entry.server.is_backup),
        "measured": report.shares.get(key),
        "role": file.member.role,
        "evidence": "roster" if report.record.from_roster.get(name) == file.mtime_ns else "event",
        "check": None if status is None else _describe_check(status),
        "weight": status.weight if status else None,
        "wanted_weight": _find_weight(entry),
        "session_count": status.session_count if status else 0,
        "in_haproxy": status is not None,
        # Names of the previous release, which go with the next one.
        "health": _format_health(status),
        "quarantined": entry.reason if is_unfit(report.decision, key, file) else None,
        "held_s": left_s if entry.state is State.HELD else None,
        "damped_s": left_s if entry.state is State.DAMPED else None,
    }


def _describe_check(status: ServerStatus) -> dict[str, Any]:
    return {"status": status.status, "result": status.check, "code": status.code, "text": status.text}


def _describe_service(report: Report, service: Service) -> dict[str, Any]:
    entries = {key: entry for key, entry in report.decision.entries.items() if key[0] == service.name}
    servers = report.servers
    return {
        "mode": service.mode,
        "is_announced": service.name in report.snapshot.services.announced.seen_s,
        "routes": list(service.routes),
        "bind": service.bind,
        "balance": service.balance,
        "split": dict(service.shares),
        "table": report.snapshot.peers.said if service.stick else None,
        "scaling": _describe_scaling(report, service.name),
        "node_counts": dict(Counter(entry.state.value for entry in entries.values())),
        "server_count": sum(entry.server is not None for entry in entries.values()),
        "up_count": None
        if servers is None
        else sum(is_up(servers.get(key)) for key, entry in entries.items() if entry.server),
    }


def _describe_scaling(report: Report, service: str) -> dict[str, Any] | None:
    scaled = report.scaled.get(service)
    return None if scaled is None else scaled.to_json(report.at_s)


def _find_weight(entry: Entry) -> int | None:
    """Return the weight that was decided: HAProxy's default is 1; None without a server."""
    return None if entry.server is None else 1 if entry.server.weight is None else entry.server.weight


def _make_file(name: str, entry: Entry) -> NodeFile:
    """Return a stand-in for the node file of a server whose node file is gone."""
    return NodeFile("", Member(name, entry.server.address if entry.server else "", "", ()), 0)


def describe_refused(name: str, reason: str) -> dict[str, Any]:
    """Return what there is to know about a member that cannot have a node file."""
    known = {"name": name, "state": State.QUARANTINED.value, "cause": Cause.UNREADABLE.value, "reason": reason}
    shown = {"level": Level.WARNING.word, "trouble": "", "evidence": "roster", "in_haproxy": False, "is_backup": False}
    return dict.fromkeys(_ABSENT) | known | shown | {"session_count": 0, "quarantined": reason}


def _format_health(status: ServerStatus | None) -> str | None:
    """Return HAProxy's word for a server's state, with the last check's result while it is not simply UP."""
    if status is None:
        return None
    return "UP" if status.status == "UP" else f"{status.status} ({status.explain_check()})"


def _find_address(member: Member, entry: Entry) -> str:
    """Return where a node's server is; without one the address that Serf says."""
    if entry.server is None:
        return member.address
    return entry.server.address if ADDRESS_TAG in member.tag_values() else unescape(member.address)


def _find_port(report: Report, service: str, member: Member) -> int | None:
    """Return the port that a node announces; None where it announces none, or has a wrong tag."""
    is_named = report.snapshot.rules.are_named or service != DEFAULT_SERVICE
    try:
        return read_claim(member, service, is_named).port
    except ValueError:
        return None
