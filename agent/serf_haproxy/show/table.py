"""The report as a table for people: how it is, what is wrong, then the nodes, the worst first."""

import fnmatch
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from serf_haproxy.control.answers import UNKNOWN
from serf_haproxy.control.report import Report
from serf_haproxy.serf.printing import printable, quoted
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.show.document import to_json
from serf_haproxy.show.levels import Level
from serf_haproxy.show.scaling import format_scaling
from serf_haproxy.show.words import Paint, format_part, format_span, keep_plain, shorten, shorten_names

WIDTH = 80  # columns, where no terminal says another number
NARROW = ("service", "name", "state", "check", "weight", "address", "why")
WIDE = (
    *("level", "service", "name", "status", "evidence", "state", "since", "check", "weight", "measured", "sessions"),
    *("address", "role", "why"),
)
_ABSENT = ("ignored", "gone")  # rarely what is looked for
SORTS = ("level", "name", "state", "since", "address")

_LINE, _CELL, NAME, _WHY = 16384, 128, 24, 20  # characters; the reason has so many beside its node, or goes below it
_GAP, _BELOW = "  ", "    "


class Choice(NamedTuple):
    """Which nodes are shown, and in which order.

    Attributes:
        globs: Patterns of names, of which one has to match; none: all.
        service: The only service; "" for all.
        states: The only states; none: all.
        are_problems: Whether only nodes are shown that are not as they should be.
        sort: One of SORTS.
    """

    globs: Sequence[str] = ()
    service: str = ""
    states: Sequence[str] = ()
    are_problems: bool = False
    sort: str = "level"

    def has(self, service: str | None, name: str) -> bool:
        """Return whether a node in a service is chosen, by their names."""
        is_named = not self.globs or any(fnmatch.fnmatchcase(name, glob) for glob in self.globs)
        return is_named and (not self.service or service == self.service)


ALL = Choice()


def choose_nodes(members: Iterable[Mapping[str, Any]], choice: Choice) -> list[Mapping[str, Any]]:
    """Return the members of the JSON document that are chosen, in order."""
    chosen = [
        one
        for one in members
        if choice.has(one["service"], one["name"])
        and (not choice.states or one["state"] in choice.states)
        and not (choice.are_problems and one["level"] == Level.OK.word)
    ]
    return sorted(chosen, key=lambda one: (_rank(one, choice.sort), one["service"] or "", one["name"]))


def format_table(report: Report, choice: Choice = ALL, width: int = WIDTH, paint: Paint = keep_plain) -> str:
    """Return the report as a table that is no wider than a terminal.

    Args:
        report: The report.
        choice: Which nodes are shown.
        width: The width of the terminal, characters; 0 for all columns and no limit.
        paint: Adds colours.
    """
    status = to_json(report)
    level, conditions = Level[status["level"].upper()], {one["name"] for one in status["conditions"]}
    lines = [paint(level, format_headline(status))]
    for one in status["findings"]:
        which = Level[one["level"].upper()]
        subject = one["subject"] if one["subject"] in conditions else f"{which.name} {one['subject']}"
        lines.append(paint(which, printable(f"{subject}: {one['text']}", _LINE)))
    members = choose_nodes(status["members"], choice)
    columns = [one for one in (NARROW if width else WIDE) if one != "service" or has_services(status)]
    lines += ["", *_format_rows(members, columns, width, paint)]
    if not members:
        lines.append(_explain_none(status, choice))
    if len(status["services"]) > 1:
        lines += ["", *(_format_service(name, one) for name, one in status["services"].items())]
    scaling = [(name, one["scaling"]) for name, one in status["services"].items() if one["scaling"]]
    lines += ["", *(printable(format_scaling(*each), _LINE) for each in scaling)] if scaling else []
    lines += ["", printable(_format_pass(status, report.at_s), _LINE)]
    if (old := status["old_workers"]) and old["worker_count"]:
        size = f"{old['memory_bytes'] / 2**20:.0f} MiB, the oldest for {format_span(old['oldest_s'])}"
        lines.append(f"{old['worker_count']} old workers finish their connections: {size}")
    return "\n".join(lines)


def _explain_none(status: Mapping[str, Any], choice: Choice) -> str:
    """Return why no node is shown."""
    if not status["members"]:
        return "no node is known"
    if choice.service and choice.service not in status["services"]:
        return f"there is no service {quoted(choice.service)}; there are {' '.join(status['services'])}"
    is_narrow = choice.globs or choice.service or choice.states or not choice.are_problems
    return f"there is no node {'that you ask for' if is_narrow else 'with a problem'}"


def format_headline(status: Mapping[str, Any]) -> str:
    """Return how the balancer is in one line, of 80 characters where it can be: totals, and who answers, with ages.

    The age of Serf is the time since it last answered a pass, that of HAProxy is the time since its newest worker
    started, and that of the daemon is the time since its last pass ended.
    """
    now_s, up = status["read_at_s"], "?" if status["up_count"] is None else status["up_count"]
    states = (status[name]["state"] for name in ("serf", "haproxy", "daemon"))
    serf, haproxy, daemon = ("?" if state == UNKNOWN else state for state in states)
    total, servers = f"{status['level'].upper()}: {up}/{status['server_count']}", " servers"
    parts = [
        _format_last("Serf", serf, "Serf heard", now_s, status["serf"]["heard_at_s"]),
        f"HAProxy {haproxy}{_format_since(status['haproxy']['age_s'])}",
        _format_last("daemon", daemon, "last pass", now_s, status["daemon"]["passed_at_s"]),
    ]
    line = " | ".join([f"{total}{servers} up", *parts])
    return line if len(line) <= WIDTH else line.replace(servers, "", 1)


def format_tsv(report: Report, choice: Choice) -> str:
    """Return the chosen nodes for programs: a line of titles, then one line each, with tabs between."""
    members = choose_nodes(to_json(report)["members"], choice)
    rows = [WIDE, *([_find_cell(one, column) for column in WIDE] for one in members)]
    return "\n".join("\t".join(row) for row in rows)


def _format_rows(
    members: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int, paint: Paint
) -> Iterable[str]:
    if not members:
        return
    found = [[_find_cell(one, column) for column in columns] for one in members]
    cells, widths = _fit(found, columns, NAME if width else 0)
    room = width - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
    is_below = bool(width) and room < min(_WHY, widths[-1])  # the reason gets lines of its own below its node
    if is_below and (spare := room + len(_GAP)) > 0:  # which leaves more room for names
        cells, widths = _fit(found, columns, NAME, spare)
    for one, row in zip([None, *members], [columns, *cells], strict=True):
        level = Level.OK if one is None else Level[one["level"].upper()]
        shown = row[:-1] if is_below else row
        line = _GAP.join(cell.ljust(each) for cell, each in zip(shown, widths, strict=False)).rstrip()
        yield paint(level, shorten(line, width) if width else line)
        if one is not None and is_below and row[-1] != "-":
            first, *more = textwrap.wrap(row[-1], width, initial_indent=_BELOW, subsequent_indent=_BELOW)
            yield paint(level, first)
            if more:
                yield paint(level, shorten(" ".join([more[0], *map(str.strip, more[1:])]), width))


def _fit(
    found: Sequence[Sequence[str]], columns: Sequence[str], most: int, spare: int = 0
) -> tuple[list[list[str]], list[int]]:
    """Return cells that are no wider than so many characters, names by `spare` more, and the width of each column.

    The reason at the end stays as it is. With 0 for `most` all cells do.
    """
    limits = [most + (spare if column == "name" else 0) for column in columns[:-1]] if most else []
    shown = [shorten_names(cells, limit) for cells, limit in zip(zip(*found, strict=True), limits, strict=False)]
    cells = [[texts[cell] for cell, texts in zip(row, shown, strict=False)] + list(row[len(limits) :]) for row in found]
    return cells, [max(map(len, column)) for column in zip(columns, *cells, strict=True)]


def _find_cell(one: Mapping[str, Any], column: str) -> str:
    makers: dict[str, Callable[[], object]] = {
        "address": lambda: f"{one['address'] or ''}:{one['port'] or ''}".strip(":"),
        "check": lambda: one["check"] and one["check"]["status"],
        "measured": lambda: format_part(one["measured"]),
        "sessions": lambda: one["session_count"],
        "since": lambda: one["since_s"] and time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one["since_s"])),
        "why": lambda: explain_member(one),
    }
    value = makers[column]() if column in makers else one[column]
    return "-" if value in (None, "") else printable(str(value), _CELL if column != "why" else _LINE)


def explain_member(one: Mapping[str, Any]) -> str:
    """Return why a node is not simply serving and up with its whole weight, and for how long."""
    left = "" if one["left_s"] is None else f", for {one['left_s']:.0f} s more"
    reason = "" if one["state"] == "serving" else one["reason"] + left
    part, measured = format_part(one["measured"]), one["measured"] or {}
    is_less = part not in ("", "100%") and one["weight"] not in (0, measured.get("limit"))  # it may be of a while ago
    less = "" if not is_less else f"gets {part} of its weight: {measured['reason'] or 'as measured'}"
    return "; ".join(part for part in (one["trouble"], reason, less) if part)


def _rank(one: Mapping[str, Any], sort: str) -> Any:
    if sort == "level":
        return -Level[one["level"].upper()], one["state"] in _ABSENT or not explain_member(one)
    if sort == "since":
        return -(one["since_s"] or 0.0)
    return str(one[sort])


def has_services(status: Mapping[str, Any]) -> bool:
    """Return whether there are further services, so that the one of a node is worth a column."""
    names = {one["service"] for one in status["members"]} - {None, DEFAULT_SERVICE}
    return bool(names) or len(status["services"]) > 1


def _format_service(name: str, service: Mapping[str, Any]) -> str:
    where = service["bind"] or ", ".join(service["routes"]) or "all other requests"
    where += ", announced by members" if service["is_announced"] else ""
    up = "?" if service["up_count"] is None else service["up_count"]
    count = f"{up} of {service['server_count']} servers are up"
    table = f"; its table of clients is {service['table']}" if service["table"] else ""
    return printable(f"service {name} ({service['mode']}, {where}): {count}{table}", _LINE)


def _format_pass(status: Mapping[str, Any], now_s: float) -> str:
    if not status["verdict"]:
        return f"last pass: none yet: {status['reason']}"
    return f"last pass: {status['verdict']} {format_span(now_s - status['at_s'])} ago: {status['reason']}"


def _format_last(name: str, state: str, did: str, now_s: float, at_s: float | None) -> str:
    """Return when a program last did its part; "up 3s" would say that it has only just started."""
    if at_s is None:
        return f"{name} {state}"
    age = format_span(now_s - at_s)
    return f"{did} {age} ago" if state == "up" else f"{name} {state} {age}"


def _format_since(age_s: float | None) -> str:
    return "" if age_s is None else f" {format_span(age_s)}"
