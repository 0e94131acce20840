"""The server state file by which a reload learns the state of the servers. Pure.

Format: version 1 of HAProxy's Management Guide, "show servers state".
"""

from collections.abc import Iterator, Mapping

from serf_haproxy.config.parse import Line, Parser
from serf_haproxy.config.render import Config
from serf_haproxy.policy.snapshot import Seen
from serf_haproxy.services import Key

NO_STATE = "1\n"  # the version of the format and no server; HAProxy warns of an empty file
_FOLLOWERS = frozenset(["agent-check", "track"])  # without `check` these raise a server that starts as down


def format_state(goal: Config, decided: Mapping[str, bool], seen: Mapping[Key, Seen] | None, header: str) -> str:
    """Return a server state file: a server keeps its state, and one that is new or moved starts as down.

    Otherwise HAProxy would consider a new server up until its checks fail, and would let an old line override the
    address of a moved one. A kept line has the weight that will be: HAProxy prefers the file's weight while the
    configured one is unchanged.

    Args:
        goal: What will run.
        decided: By name, the servers that were decided, and whether each is new or elsewhere than before.
        seen: What runs; None when no socket tells: then a server that is not new has no line, and starts as up.
        header: The line that names the columns.
    """
    lines = ["1", header] if header else ["1"]
    columns = header.removeprefix("# ").split()
    servers = {**dict(_read_opaque(goal, decided, seen or {})), **goal.layout.servers}
    for number, (key, line) in enumerate(sorted(servers.items()), 1):
        running = (seen or {}).get(key)
        if running and running.endpoint == line.endpoint and not running.is_set_aside:
            fields = dict(zip(columns, running.line.split(" "), strict=True))
            fields |= dict.fromkeys(("srv_uweight", "srv_iweight"), str(line.weight))
            lines.append(" ".join(fields.values()))
        elif "check" in line.words and (seen is not None or decided.get(key[1], False)):
            address, _, port = line.endpoint.rpartition(":")
            state = f"0 0 {line.weight} {line.weight} 0 1 0 0 6 0 0 0"
            lines.append(f"1 {key[0]} {number} {key[1]} {address.strip('[]')} {state} - {port} - 0 0 - - 0")
    return "\n".join(lines) + "\n"


def _read_opaque(goal: Config, decided: Mapping[str, bool], seen: Mapping[Key, Seen]) -> Iterator[tuple[Key, Line]]:
    """Yield our servers in sections with lines in other than plain words, such as quotes.

    What those words mean, only HAProxy knows. So a server there counts as checked unless all that run in its section
    are not. HAProxy applies a line only where name and section are those of a server.
    """
    checked = {section for (section, name), one in seen.items() if name in decided and one.is_checked}
    unchecked = {section for section, name in seen if name in decided} - checked
    for head, *lines in Parser().split(goal.text):
        words = head.split()
        if words[0] not in ("backend", "listen") or len(words) < 2 or words[1] in goal.layout.sections:
            continue
        for line in lines:
            keyword, *rest = line.split()
            if keyword != "server" or len(rest) < 2:
                continue
            name, endpoint, *more = [word.strip("\"'") for word in rest]
            if name not in decided or not endpoint.rpartition(":")[2].isdecimal():
                continue
            is_checked = "check" in more or (words[1] not in unchecked and _FOLLOWERS.isdisjoint(more))
            said = more[more.index("weight") + 1] if "weight" in more[:-1] else "1"
            weight = int(said) if said.isdecimal() and len(said) <= 3 else 1
            yield (words[1], name), Line(endpoint, weight, ("check",) if is_checked else ())
