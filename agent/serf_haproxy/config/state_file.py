"""The server state file by which a reload learns the state of the servers. Pure.

Format: version 1 of HAProxy's Management Guide, "show servers state".
"""

from collections.abc import Mapping

from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.policy.snapshot import Seen
from serf_haproxy.services import Key
from serf_haproxy.system.network import split_endpoint

NO_STATE = "1\n"  # the version of the format and no server; HAProxy warns of an empty file


def format_state(goal: Layout, before: Layout, seen: Mapping[Key, Seen] | None, header: str) -> str:
    """Return a server state file: a server keeps its state, and one that is new or moved starts as down.

    Otherwise HAProxy would consider a new server up until its checks fail, and would let an old line override the
    address of a moved one. A kept line has the weight that will be: HAProxy prefers the file's weight while the
    configured one is unchanged.

    Args:
        goal: What will run.
        before: What the published file says so far.
        seen: What runs; None when no socket tells: then a server of the published file has no line, and starts as up.
        header: The line that names the columns.
    """
    lines = ["1", header] if header else ["1"]
    columns = header.removeprefix("# ").split()
    for number, (key, line) in enumerate(sorted(goal.servers.items()), 1):
        running = (seen or {}).get(key)
        if running and running.endpoint == line.endpoint and not running.is_set_aside:
            fields = dict(zip(columns, running.line.split(" "), strict=True))
            fields |= dict.fromkeys(("srv_uweight", "srv_iweight"), str(line.weight))
            lines.append(" ".join(fields.values()))
        elif "check" in line.words and (seen is not None or not _is_at(line.endpoint, before.servers.get(key))):
            address, port = split_endpoint(line.endpoint)
            state = f"0 0 {line.weight} {line.weight} 0 1 0 0 6 0 0 0"
            lines.append(f"1 {key[0]} {number} {key[1]} {address} {state} - {port} - 0 0 - - 0")
    return "\n".join(lines) + "\n"


def _is_at(endpoint: str, line: Line | None) -> bool:
    return line is not None and line.endpoint == endpoint
