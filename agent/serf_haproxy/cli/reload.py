"""serf-haproxy reload: order a reload."""

import argparse
import os
from typing import Any

from serf_haproxy.cli.maint import add_author, read_wish
from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `reload`."""
    text = "Have the balancers reload HAProxy once, although nothing needs it."
    parser = commands.add_parser("reload", help=text, description=text)
    parser.set_defaults(command=reload)
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; the log and the history show it")
    add_author(parser)


def reload(args: argparse.Namespace) -> int:
    """Order a reload."""
    import time

    from serf_haproxy.control.give import Desk
    from serf_haproxy.policy.orders import ON, RELOAD, RELOAD_MS

    desk = Desk(load_settings(os.environ))
    wish = read_wish(args)._replace(until_s=time.time() + RELOAD_MS / 1e3)
    when = desk.give([desk.make(RELOAD, ON, wish)])
    limit = f", if that is within {RELOAD_MS // 60_000} minutes" if when.startswith(", once") else ""
    print(f"HAProxy is reloaded by the next pass{when}{limit}")
    return 0
