"""The server state file by which a reload learns the state of the servers. Pure.

Format: version 1 of HAProxy's Management Guide, "show servers state".
"""

from collections.abc import Iterator, Mapping

from serf_haproxy.config.diff import weigh
from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.config.render import Config
from serf_haproxy.config.words import split_sections, take_number
from serf_haproxy.policy.snapshot import UP, Seen
from serf_haproxy.services import DEFAULT_SERVICE, Key
from serf_haproxy.system.network import split_endpoint

NO_STATE = "1\n"  # the version of the format and no server; HAProxy warns of an empty file


def format_state(
    goal: Config,
    decided: Mapping[Key, bool],
    seen: Mapping[Key, Seen] | None,
    header: str,
    before: Layout | None = None,
) -> str:
    """Return a server state file: a server keeps its state, and one that is new or moved starts as down.

    Otherwise HAProxy would consider a new server up until its checks fail, and would let an old line override the
    address of a moved one. Where a service only has another name, its servers go on as up. A kept line has the weight
    that will be: HAProxy prefers the file's weight while the configured one is unchanged. What an administrator has
    done to a server that only a reload can change is kept, and so is the weight that an agent has set.

    Args:
        goal: What will run.
        decided: The servers that were decided, and whether each is new or elsewhere than before.
        seen: What runs; None when no socket tells: then a server that is not new has no line, and starts as up.
        header: The line that names the columns.
        before: What ran so far; None: the goal.
    """
    lines = ["1", header] if header else ["1"]
    columns = header.removeprefix("# ").split()
    layout = goal.layout
    fixed = {key: line for key, line in layout.fixed.items() if line and "disabled" not in line.words}
    servers = {**dict(_read_opaque(goal, decided, seen or {})), **fixed, **layout.servers}
    renamed = _find_renamed(layout, seen or {})
    for number, (key, line) in enumerate(sorted(servers.items()), 1):
        running = (seen or {}).get(key)
        is_kept = running and running.endpoint == line.endpoint and (key in fixed or not running.is_set_aside)
        if running and is_kept:
            fields = dict(zip(columns, running.line.split(" "), strict=True))
            if key in layout.servers or (find_decided(decided, key) is not None and "agent-check" not in line.words):
                weight = weigh(layout, before or layout, key, running) if key in layout.servers else line.weight
                fields |= {"srv_uweight": str(weight), "srv_iweight": str(line.weight)}
            if line.id and "srv_id" in fields:
                fields |= {"srv_id": str(line.id), "srv_f_forced_id": "1"}
            lines.append(" ".join(fields.values()))
        elif (
            _starts_down(line)
            and (key[1], line.endpoint) not in renamed.get(key[0], ())
            and (_may_be_new(goal, decided, key) if seen is not None else find_decided(decided, key))
        ):
            address, port = split_endpoint(line.endpoint)
            state = f"0 0 {line.weight} {line.weight} 0 1 0 0 6 0 0 {int(line.id > 0)}"
            lines.append(f"1 {key[0]} {line.id or number} {key[1]} {address} {state} - {port} - 0 0 - - 0")
    return "\n".join(lines) + "\n"


def find_decided(decided: Mapping[Key, bool], key: Key) -> bool | None:
    """Return whether the server in a section is new or elsewhere than before; None where it was not decided.

    A section that has no service's name has servers of the default service.
    """
    return decided.get(key, decided.get((DEFAULT_SERVICE, key[1])))


def _find_renamed(layout: Layout, seen: Mapping[Key, Seen]) -> dict[str, set[tuple[str, str]]]:
    """Return the sections that have no server yet, with names and endpoints of servers up in sections that end now.

    A service that has another name has clients, and all its servers would be down until their first checks.
    """
    before = {section for section, _ in seen}
    after = layout.sections | {section for section, _ in (*layout.servers, *layout.fixed)}
    up = {
        (name, one.endpoint)
        for (section, name), one in seen.items()
        if section not in after and one.operation == UP and one.is_checked and not one.is_set_aside
    }
    return dict.fromkeys(after - before, up) if up else {}


def _starts_down(line: Line) -> bool:
    """Return whether a health check raises a server that starts as down; its agent need not say `up`."""
    return "check" in line.words and "agent-check" not in line.words


def _may_be_new(goal: Config, decided: Mapping[Key, bool], key: Key) -> bool:
    """Return whether a server that does not run may be set down: it is ours, or in a section of plain words."""
    return key[0] in goal.layout.sections or find_decided(decided, key) is not None


def _read_opaque(goal: Config, decided: Mapping[Key, bool], seen: Mapping[Key, Seen]) -> Iterator[tuple[Key, Line]]:
    """Yield our servers in sections with lines of which only HAProxy knows what they say.

    A server there counts as checked unless all that run in its section are not. HAProxy applies a line only where name
    and section are those of a server.
    """
    ours = {key: one for key, one in seen.items() if find_decided(decided, key) is not None}
    checked = {section for (section, _), one in ours.items() if one.is_checked}
    unchecked = {section for section, _ in ours} - checked
    for head, *lines in split_sections(goal.text):
        words = head.split()
        if words[0] not in ("backend", "listen") or len(words) < 2 or words[1] in goal.layout.sections:
            continue
        for line in lines:
            keyword, *rest = line.split()
            if keyword != "server" or len(rest) < 2:
                continue
            name, endpoint, *more = [word.strip("\"'") for word in rest]
            if (
                find_decided(decided, (words[1], name)) is None
                or not endpoint.rpartition(":")[2].isdecimal()
                or "disabled" in more
            ):
                continue
            weight, number = take_number(more, "weight", 1), take_number(more, "id", 0)
            is_checked = "check" in more or (words[1] not in unchecked and "track" not in more)
            checks = [*(["check"] if is_checked else []), *(["agent-check"] if "agent-check" in more else [])]
            yield (words[1], name), Line(endpoint, weight, tuple(checks), number)
