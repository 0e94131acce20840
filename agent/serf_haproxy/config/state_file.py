"""The server state file by which a reload learns the state of the servers. Pure.

Format: version 1 of HAProxy's Management Guide, "show servers state".
"""

from collections.abc import Mapping

from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.policy.snapshot import Seen
from serf_haproxy.services import Key

NO_STATE = "1\n"  # the version of the format and no server; HAProxy warns of an empty file


def format_state(goal: Layout, before: Layout, seen: Mapping[Key, Seen] | None, header: str) -> str:
    """Return a server state file: a server keeps its state, and one that is new or moved starts as down.

    Otherwise HAProxy would consider a new server up until its checks fail, and would let an old line override the
    address of a moved one. A kept line has the weight that will be: HAProxy prefers the file's weight while the
    configured one is unchanged. What an administrator has done to a server that only a reload can change is kept.

    Args:
        goal: What will run.
        before: What the published file says so far.
        seen: What runs; None when no socket tells: then a server of the published file has no line, and starts as up.
        header: The line that names the columns.
    """
    lines = ["1", header] if header else ["1"]
    columns = header.removeprefix("# ").split()
    fixed = {key: line for key, line in goal.fixed.items() if line and "disabled" not in line.words}
    for number, (key, line) in enumerate(sorted((goal.servers | fixed).items()), 1):
        running = (seen or {}).get(key)
        is_kept = running and running.endpoint == line.endpoint and (key in fixed or not running.is_set_aside)
        if running and is_kept:
            fields = dict(zip(columns, running.line.split(" "), strict=True))
            if key in goal.servers:
                fields |= dict.fromkeys(("srv_uweight", "srv_iweight"), str(line.weight))
            if line.id and "srv_id" in fields:
                fields |= {"srv_id": str(line.id), "srv_f_forced_id": "1"}
            lines.append(" ".join(fields.values()))
        elif _starts_down(line) and (seen is not None or not _is_at(line.endpoint, before, key)):
            address, _, port = line.endpoint.rpartition(":")
            state = f"0 0 {line.weight} {line.weight} 0 1 0 0 6 0 0 {int(line.id > 0)}"
            place = f"1 {key[0]} {line.id or number} {key[1]} {address.strip('[]')}"
            lines.append(f"{place} {state} - {port} - 0 0 - - 0")
    return "\n".join(lines) + "\n"


def _starts_down(line: Line) -> bool:
    """Return whether a health check raises a server that starts as down; its agent need not say `up`."""
    return "check" in line.words and "agent-check" not in line.words


def _is_at(endpoint: str, before: Layout, key: Key) -> bool:
    line = before.servers.get(key) or before.fixed.get(key)
    return line is not None and line.endpoint == endpoint
