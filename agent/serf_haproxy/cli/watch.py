"""serf-haproxy watch: how the balancer is, live."""

import argparse
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serf_haproxy.settings import Settings, load_settings

if TYPE_CHECKING:
    from serf_haproxy.control.report import Report
    from serf_haproxy.show.table import Choice
    from serf_haproxy.show.trail import Step

_EVENT_COUNT = 100
_INTERVAL_S = 1.0


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `watch`."""
    text = "Show how the balancer is, live: services, servers with rates and latencies, events. Ctrl-C ends it."
    parser = commands.add_parser("watch", help=text, description=text)
    parser.set_defaults(command=watch)
    parser.add_argument("glob", nargs="*", metavar="GLOB", help="show only nodes with such a name, for example 'web*'")
    parser.add_argument("--service", metavar="NAME", default="", help="show only this service")
    how = "seconds between two looks (1)"
    parser.add_argument("--interval", type=float, default=_INTERVAL_S, metavar="SECONDS", help=how)
    parser.add_argument("--plain", action="store_true", help="print a line for each event, as without a terminal")


def watch(args: argparse.Namespace) -> int:
    """Show how the balancer is until Ctrl-C: with rich in a terminal, else one line for each event."""
    from serf_haproxy.errors import InputError
    from serf_haproxy.show.table import Choice

    if not 0.1 <= args.interval <= 3600:
        raise InputError(f"--interval {args.interval:g}: must be 0.1 to 3600 seconds")
    settings, choice = load_settings(os.environ), Choice(args.glob, args.service)
    if not args.plain and sys.stdout.isatty():
        try:
            from serf_haproxy.show.live import make_view, run_live
        except ModuleNotFoundError:
            print("serf-haproxy: for a live view install the extra: pip install 'serf-haproxy[watch]'", file=sys.stderr)
        else:
            events = deque[str](maxlen=_EVENT_COUNT)

            def show(update: Callable[[Any], None]) -> None:
                def draw(report: "Report", step: "Step") -> None:
                    events.extend(map(_stamp, step.events))
                    update(make_view(report, step.rates, list(events), choice, shutil.get_terminal_size().lines))

                _follow(settings, args.interval, choice, draw)

            run_live(show)
            return 0
    _follow(settings, args.interval, choice, _print_plain)
    return 0


def _print_plain(report: "Report", step: "Step") -> None:
    """Print events, and after them how the balancer is; this alone for the first report."""
    from serf_haproxy.serf.printing import printable
    from serf_haproxy.show.document import to_json
    from serf_haproxy.show.table import format_headline

    if step.events or step.is_first:
        lines = [*map(_stamp, step.events), _stamp(format_headline(to_json(report)))]
        print("\n".join(printable(line, 16384) for line in lines), flush=True)


def _follow(settings: Settings, interval_s: float, choice: "Choice", draw: "Callable[[Report, Step], None]") -> None:
    """Read reports and draw each with what has changed, until the user ends it."""
    from serf_haproxy.control.report import read_report
    from serf_haproxy.show.trail import compare

    before: Report | None = None
    while True:
        report = read_report(settings)
        draw(report, compare(before, report, choice))
        before = report
        time.sleep(interval_s)


def _stamp(text: str) -> str:
    return f"{time.strftime('%H:%M:%S')} {text}"
