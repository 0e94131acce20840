"""serf-haproxy pause, resume: whether passes change HAProxy."""

import argparse
import os
from typing import Any

from serf_haproxy.cli.maint import add_author, add_end, read_wish
from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands `pause` and `resume`."""
    text = "Have the balancers change nothing at HAProxy until they are resumed; they go on watching and reporting."
    parser = commands.add_parser("pause", help=text, description=text)
    parser.set_defaults(command=pause)
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; status and the history show it")
    add_end(parser)
    add_author(parser)
    text = "End a pause."
    parser = commands.add_parser("resume", help=text, description=text)
    parser.set_defaults(command=resume)
    add_author(parser)


def pause(args: argparse.Namespace) -> int:
    """Order a pause."""
    from serf_haproxy.control.give import Desk
    from serf_haproxy.policy.orders import ON, PAUSE, explain
    from serf_haproxy.serf.printing import printable

    desk = Desk(load_settings(os.environ))
    order = desk.make(PAUSE, ON, read_wish(args))
    when = desk.give([order])
    print(f"{printable(explain(order))}; 'serf-haproxy resume' ends it{when}")
    return 0


def resume(args: argparse.Namespace) -> int:
    """Undo a pause, of this balancer alone and of all."""
    from serf_haproxy.control.give import Desk
    from serf_haproxy.policy.orders import PAUSE, UNDONE

    desk = Desk(load_settings(os.environ))
    wish = read_wish(args)
    scopes = {True} | ({False} if not args.local else set())
    there = desk.read()
    orders = [
        desk.make(PAUSE, UNDONE, wish._replace(is_local=is_local))
        for is_local in sorted(scopes)
        if not is_local or (PAUSE, "", "", True) in there
    ]
    if not orders:
        print("there is no pause of this balancer alone")
        return 0
    when = desk.give(orders)
    print(f"passes change HAProxy again{when}")
    return 0
