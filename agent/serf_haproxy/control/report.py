"""What `serf-haproxy status` shows: evidence, decision and HAProxy's own view of every node, side by side."""

import os
import time
from typing import Any

from serf_haproxy.control.goal import decide, rules_of
from serf_haproxy.control.state import read_flaps, read_record, read_unfit
from serf_haproxy.haproxy.runtime import ServerView, read_servers
from serf_haproxy.haproxy.workers import read_old_workers
from serf_haproxy.policy import decide as pool
from serf_haproxy.policy.server import read_server
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import Member, unescape
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import is_locked

_COLUMNS = ("name", "status", "address", "port", "role", "evidence", "in_haproxy", "health")


def read_status(settings: Settings) -> dict[str, Any]:
    """Collect the status.

    Returns:
        verdict, reason and digest of the last pass, when it was and how long it took, whether the resident and
        HAProxy answer, and `members`, one map with the keys of the table for each node.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    record = read_record(settings)
    files, strays = nodes.load(settings.nodes_dir)
    views = read_servers(settings)
    down = frozenset(name for name, view in (views or {}).items() if view.status.startswith("DOWN"))
    context = pool.Context(flaps=read_flaps(settings), unfit=read_unfit(record), down=down)
    decided = decide(settings, files, rules_of(settings, record.self_name), context)
    ports = {server.name: server.port for server in decided.servers}
    old = read_old_workers(settings)
    members = [
        {
            "name": name,
            "status": heard.status,
            "address": unescape(heard.member.address) if name in ports else heard.member.address,
            "port": ports.get(name, _said_port(heard.member)),
            "role": heard.member.role,
            "evidence": "roster" if record.from_roster.get(name) == heard.mtime_ns else "event",
            "in_haproxy": name in (views or {}),
            "health": _health((views or {}).get(name)),
            "quarantined": decided.quarantined.get(name),
            "held_s": decided.held.get(name),
            "damped_s": decided.damped.get(name),
        }
        for name, heard in files.items()
    ]
    members += [
        dict.fromkeys((*_COLUMNS, "quarantined", "held_s", "damped_s"))
        | {"name": name, "evidence": "roster", "in_haproxy": False, "quarantined": reason}
        for name, reason in record.refused.items()
    ]
    return {
        "verdict": record.verdict,
        "reason": record.reason,
        "digest": record.digest,
        "at_s": record.at_s,
        "took_s": record.took_s,
        "changed_at_s": record.changed_at_s,
        "self_name": record.self_name,
        "resident_runs": is_locked(os.path.join(settings.state_dir, "resident.lock")),
        "haproxy_answers": views is not None,
        "old_workers": old._asdict() if old else None,
        "members": members,
        "strays": {ascii(stray.name)[1:-1]: stray.reason for stray in strays},
    }


def format_status(status: dict[str, Any]) -> str:
    """Return the status as a table for people."""
    rows: list[tuple[str, ...]] = [(*_COLUMNS, "note")]
    rows += [(*(_cell(member[column]) for column in _COLUMNS), _note(member)) for member in status["members"]]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not status["members"]:
        lines = ["no node is known"]
    lines += [f"ignored file {name}: {reason}" for name, reason in status["strays"].items()]
    ago_s = time.time() - status["at_s"]
    verdict = f"{status['verdict']} {ago_s:.0f} s ago" if status["verdict"] else "no verdict"
    lines += ["", f"last pass: {verdict}: {status['reason']}"]
    if status["resident_runs"] is False:
        lines.append("the resident does not run: events are written down and wait")
    if not status["haproxy_answers"]:
        lines.append("HAProxy does not answer on its sockets")
    old = status["old_workers"]
    if old and old["worker_count"]:
        size = f"{old['memory_bytes'] / 2**20:.0f} MiB, the oldest for {old['oldest_s']:.0f} s"
        lines.append(f"{old['worker_count']} old workers finish their connections: {size}")
    return "\n".join(lines)


def _note(member: dict[str, Any]) -> str:
    """Say why a node is in another state than one would think."""
    notes = [f"quarantined: {member['quarantined']}"] if member["quarantined"] else []
    notes += [f"held for {member['held_s']:.0f} s yet"] if member["held_s"] else []
    notes += [f"damped for {member['damped_s']:.0f} s yet"] if member["damped_s"] else []
    return ", ".join(notes) or "-"


def _health(view: ServerView | None) -> str | None:
    """Return HAProxy's word for a server's state, with the last check's result while it is not simply UP."""
    if view is None:
        return None
    return "UP" if view.status == "UP" else f"{view.status} ({view.check or 'unchecked'})"


def _said_port(member: Member) -> int | None:
    """Return the port that a node names itself; None where it names none, or has a tag that is wrong."""
    try:
        return read_server(member, 1).port if "port" in member.tag_values() else None
    except ValueError:
        return None


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)
