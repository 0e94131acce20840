"""serf-haproxy history: what was decided, ordered and done, and why."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from serf_haproxy.errors import InputError
from serf_haproxy.settings import load_settings

if TYPE_CHECKING:
    from serf_haproxy.control.history import Happening

_POLL_S = 0.5


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `history`."""
    text = "Show what this balancer has decided, been ordered, found and done: when, what, why and by whose order."
    parser = commands.add_parser("history", help=text, description=text)
    parser.set_defaults(command=history)
    parser.add_argument("node", nargs="*", metavar="NODE", help="only what is about this node")
    parser.add_argument("--service", metavar="NAME", default="", help="only what is about this service")
    since = (
        "only what came after this: a span back from now such as 90s, 30m, 2h or 1d, or a time in UTC such as 18:30Z"
    )
    parser.add_argument("--since", metavar="TIME", default="", help=since)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="json: one object a line")


def history(args: argparse.Namespace) -> int:
    """Show the history, and go on with it if that is wanted."""
    import time

    from serf_haproxy.control.history import History, Wanted
    from serf_haproxy.system.moments import read_time

    if len(args.node) > 1:
        raise InputError("history: name one node, or none")
    try:
        since_s = read_time(args.since, time.time(), is_past=True) if args.since else 0.0
    except ValueError as error:
        raise InputError(f"--since: {error}") from error
    wanted = Wanted(args.node[0] if args.node else "", args.service, since_s)
    kept = History(load_settings(os.environ).state_dir)
    tail = kept.follow(wanted) if args.follow else None
    is_empty = True
    for one in kept.read(wanted):
        is_empty = False
        _show(one, args.output)
    if is_empty and not tail:
        print(f"the history has nothing{_describe(args)}", file=sys.stderr)
    while tail:
        time.sleep(_POLL_S)
        for one in tail.read():
            _show(one, args.output)
    return 0


def _describe(args: argparse.Namespace) -> str:
    node, service = args.node[:1], [args.service] if args.service else []
    about = "".join(f" about {name!a}" for name in node) + "".join(f" in service {name!a}" for name in service)
    return about + (f" since {args.since}" if args.since else "")


def _show(one: "Happening", output: str) -> None:
    import json

    print(json.dumps(one._asdict()) if output == "json" else one, flush=True)
