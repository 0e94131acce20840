"""The live view in a terminal, with rich: how it is, services, servers with rates and latencies, the last events."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serf_haproxy.control.report import Report
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import Key
from serf_haproxy.show.document import to_json
from serf_haproxy.show.levels import Level
from serf_haproxy.show.table import NAME, Choice, choose_nodes, explain_member, format_headline, has_services
from serf_haproxy.show.words import shorten_names

_STYLES = {Level.OK: "", Level.WARNING: "yellow", Level.CRITICAL: "bold red"}
_SHARE = 3  # a third of the screen for events


def run_live(show: Callable[[Callable[[Any], None]], None]) -> None:
    """Give a function the whole screen of the terminal; it calls its argument with each view."""
    with Live(screen=True, auto_refresh=False) as live:
        show(lambda view: live.update(view, refresh=True))


def make_view(report: Report, rates: Mapping[Key, float], events: Sequence[str], choice: Choice, height: int) -> Group:
    """Return the view of a report.

    Args:
        report: The report.
        rates: Requests or connections a second of each server.
        events: What has happened, the last one at the end.
        choice: Which nodes are shown.
        height: Lines of the terminal.
    """
    status = to_json(report)
    lines: list[Any] = [Text(format_headline(status), style=_STYLES[Level[status["level"].upper()]])]
    lines += [
        _make_line(f"{one['subject']}: {one['text']}", _STYLES[Level[one["level"].upper()]])
        for one in status["findings"][: height // _SHARE]
    ]
    if len(status["services"]) > 1:
        lines.append(_list_services(status["services"], rates))
    event_count = max(3, height // _SHARE)
    room = max(3, height - len(lines) - event_count - 6)
    members = choose_nodes(status["members"], choice)
    lines.append(_list_members(report, members[:room], rates, has_services(status)))
    if len(members) > room:
        lines.append(Text(f"... and {len(members) - room} more nodes", style="dim"))
    return Group(*lines, *map(_make_line, events[-event_count:]))


def _make_line(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _list_services(services: Mapping[str, Mapping[str, Any]], rates: Mapping[Key, float]) -> Table:
    table = _make_table("service", "up", "per s")
    for name, one in services.items():
        rate = sum(each for key, each in rates.items() if key[0] == name)
        up = "?" if one["up_count"] is None else one["up_count"]
        table.add_row(printable(name), f"{up}/{one['server_count']}", f"{rate:.1f}")
    return table


def _list_members(
    report: Report, members: Sequence[Mapping[str, Any]], rates: Mapping[Key, float], has_service: bool
) -> Table:
    first = ["service"] if has_service else []
    table = _make_table(*first, "name", "state", "check", "weight", "now", "per s", "ms", "why")
    servers = report.servers or {}
    names = shorten_names((one["name"] for one in members), NAME)
    for one in members:
        key = one["service"] or "", one["name"]
        status = servers.get(key)
        ms = "-" if status is None or status.response_ms is None else str(status.response_ms)
        cells = [
            *([one["service"] or "-"] if has_service else []),
            *(names[one["name"]], one["state"], status.status if status else "-"),
            *(str("-" if one["weight"] is None else one["weight"]), str(one["session_count"])),
            *(f"{rates.get(key, 0.0):.1f}" if status else "-", ms, explain_member(one)),
        ]
        table.add_row(*map(Text, map(printable, cells)), style=_STYLES[Level[one["level"].upper()]])
    return table


def _make_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=1 if column == "why" else None)
    return table
