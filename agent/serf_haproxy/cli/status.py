"""serf-haproxy status: how the balancer is, and every node with its state and the reason."""

import argparse
import json
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from serf_haproxy.settings import load_settings

if TYPE_CHECKING:
    from serf_haproxy.show.table import Choice

_WATCH_S = 2.0


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `status`."""
    text = "Show how the balancer is, what is wrong, and every node; exit with 0 ok, 1 warning, 2 critical."
    parser = commands.add_parser("status", help=text, description=text)
    parser.set_defaults(command=status)
    parser.add_argument("glob", nargs="*", metavar="GLOB", help="show only nodes with such a name, for example 'web*'")
    parser.add_argument("--service", metavar="NAME", default="", help="show only this service")
    parser.add_argument("--state", metavar="STATE", default="", help="show only nodes in these states, with commas")
    parser.add_argument("--problems", action="store_true", help="show only nodes that are not as they should be")
    sorts = ("level", "name", "state", "since", "address")
    parser.add_argument("--sort", choices=sorts, default="level", help="order of the nodes (level: the worst first)")
    how = "table: 80 columns or the terminal's; wide: all columns; json, tsv: for programs"
    parser.add_argument("-o", "--output", choices=("table", "wide", "json", "tsv"), default="table", help=how)
    parser.add_argument("--json", action="store_const", const="json", dest="output", help="the same as -o json")
    again = "show it again every so many seconds (2) until Ctrl-C"
    parser.add_argument("--watch", nargs="?", type=float, const=_WATCH_S, metavar="SECONDS", help=again)
    parser.add_argument("--exit-code", action="store_true", help="print the first line only: for probes")


def status(args: argparse.Namespace) -> int:
    """Show how the balancer is; return 0 when all is well, 1 for a warning, 2 when it is critical."""
    from serf_haproxy.control.report import read_report
    from serf_haproxy.errors import InputError
    from serf_haproxy.policy.decision import State
    from serf_haproxy.show.findings import judge_report
    from serf_haproxy.show.table import Choice

    states = args.state.replace(",", " ").split()
    if unknown := set(states) - {each.value for each in State}:
        raise InputError(f"--state {sorted(unknown)[0]!a}: there is no such state; there are {' '.join(State)}")
    if args.watch is not None and not 0.1 <= args.watch <= 3600:
        raise InputError(f"--watch {args.watch:g}: must be 0.1 to 3600 seconds")
    choice = Choice(args.glob, args.service, states, args.problems, args.sort)
    settings = load_settings(os.environ)
    while True:
        report = read_report(settings)
        text = _format(report, choice, args)
        is_cleared = args.watch is not None and sys.stdout.isatty()
        print(f"\x1b[H\x1b[2J{text}" if is_cleared else text, flush=True)
        if args.watch is None:
            return int(judge_report(report))
        time.sleep(args.watch)


def _format(report: Any, choice: "Choice", args: argparse.Namespace) -> str:
    from serf_haproxy.show import table, words
    from serf_haproxy.show.document import to_json

    if args.exit_code:
        return table.format_headline(to_json(report))
    if args.output == "json":
        document = to_json(report)
        return json.dumps(document | {"members": table.choose_nodes(document["members"], choice)}, indent=1)
    if args.output == "tsv":
        return table.format_tsv(report, choice)
    paint = words.paint if has_colours() else words.keep_plain
    width = 0 if args.output == "wide" else shutil.get_terminal_size((table.WIDTH, 0)).columns
    return table.format_table(report, choice, max(width, 40) if width else 0, paint)


def has_colours() -> bool:
    """Return whether the output is a terminal that shows colours, and the user wants them (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
