"""serf-haproxy pause, resume: whether passes change HAProxy."""

import argparse
import os
import sys
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
    if silence := desk.find_silence():
        print(f"serf-haproxy: no pass can change HAProxy anyway until {silence}", file=sys.stderr)
    return 0


def resume(args: argparse.Namespace) -> int:
    """Undo a pause, of this balancer alone and of all."""
    from serf_haproxy.control.give import Desk
    from serf_haproxy.policy.orders import PAUSE, UNDONE
    from serf_haproxy.system.moments import time_ms

    desk, wish = Desk(load_settings(os.environ)), read_wish(args)
    now_ms = time_ms()
    found = [one.order for one in desk.read().values() if one.order.verb == PAUSE and one.order.is_active(now_ms)]
    has_local, is_for_all = (any(order.is_local is is_local for order in found) for is_local in (True, False))
    on_all = "the pause of all balancers goes on; 'serf-haproxy resume' without --local ends it"
    if args.local and not has_local:
        print(f"there is no pause of this balancer alone{f'; {on_all}' if is_for_all else ''}")
        return 0
    if not found and not desk.has_others():
        print("there is no pause")
        return 0
    scopes = [True] * has_local + [False] * (not args.local)
    when = desk.give([desk.make(PAUSE, UNDONE, wish._replace(is_local=is_local)) for is_local in scopes])
    if args.local and is_for_all:
        print(f"the pause of this balancer alone has ended; {on_all}{when}")
    elif not found:
        print(f"there is no pause here; other balancers are told to resume{when}")
    else:
        print(f"passes change HAProxy again{when}")
    return 0
