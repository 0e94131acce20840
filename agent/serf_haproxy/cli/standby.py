"""serf-haproxy standby: set this balancer aside, so that traffic goes to another one."""

import argparse
import os
import sys
from typing import Any

from serf_haproxy.errors import EXIT_SYSTEM
from serf_haproxy.settings import load_settings

_QUIET_S = 3.0  # more than it takes keepalived to notice, as the examples have it
_WAIT_S = 60.0


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `standby`."""
    text = "Have traffic go to another balancer while this one is worked on; HAProxy goes on serving what still comes."
    parser = commands.add_parser("standby", help=text, description=text)
    parser.set_defaults(command=standby)
    turn = "on: `serf-haproxy ready --for traffic` fails from now on, until off or a restart of the machine"
    parser.add_argument("turn", choices=["on", "off"], help=turn)
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; status shows it")
    wait = f"with on: wait until no connection has come for {_QUIET_S:g} s, {_WAIT_S:g} s at most, then exit with 111"
    parser.add_argument("--wait", action="store_true", help=wait)


def standby(args: argparse.Namespace) -> int:
    """Set the balancer aside, or take it back."""
    from serf_haproxy.control.standby import end_standby, set_aside, wait_for_quiet

    settings = load_settings(os.environ)
    if args.turn == "off":
        was_set = end_standby(settings)
        print("traffic may come again" if was_set else "it was not on standby")
        return 0
    set_aside(settings, args.reason)
    print("traffic should go to another balancer; 'serf-haproxy standby off' ends it", flush=True)
    if args.wait and (obstacle := wait_for_quiet(settings, _QUIET_S, _WAIT_S)):
        said = f"{obstacle} still come after {_WAIT_S:g} s: is another balancer ready? It stays on standby"
        print(f"serf-haproxy: {said}", file=sys.stderr)
        return EXIT_SYSTEM
    if args.wait:
        print(f"no connection has come for {_QUIET_S:g} s")
    return 0
