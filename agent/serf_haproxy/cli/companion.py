"""serf-haproxy companion: announce the containers of this host whose images cannot be changed."""

import argparse
import os
from typing import Any

from serf_haproxy.errors import InputError

_SOCKET, _PORTS, _MOST = "/var/run/docker.sock", "20000-20999", 32


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `companion`."""
    text = (
        "Announce each running container of this host that has the labels serf-haproxy.service and serf-haproxy.port "
        "as a node of its own, until SIGTERM."
    )
    parser = commands.add_parser("companion", help=text, description=text)
    parser.set_defaults(command=companion, keeps_root=True)
    join = "gossip addresses of the cluster, HOST[:PORT], with blanks between them (default: SERF_JOIN)"
    parser.add_argument("--join", metavar="PLACES", default=os.environ.get("SERF_JOIN", ""), help=join)
    parser.add_argument("--socket", metavar="PATH", default=_SOCKET, help=f"the engine's socket (default: {_SOCKET})")
    ports = f"ports of the nodes: half of them for gossip, half for RPC on loopback (default: {_PORTS})"
    parser.add_argument("--ports", metavar="LOW-HIGH", default=_PORTS, help=ports)
    most = f"how many nodes there may be, 1 to 200 (default: {_MOST})"
    parser.add_argument("--max", metavar="N", type=int, default=_MOST, help=most)
    prefix = "what each node's name has before its container's, where two hosts have containers with the same names"
    parser.add_argument("--prefix", metavar="TEXT", default="", help=prefix)


def companion(args: argparse.Namespace) -> int:
    """Announce containers until told to stop."""
    import logging
    import signal
    import sys

    from serf_haproxy.companion.common import make_cluster, read_range
    from serf_haproxy.companion.crew import Crew
    from serf_haproxy.companion.loop import Companion, Rules
    from serf_haproxy.control.rules import read_secret_file
    from serf_haproxy.daemon.log import make_handler
    from serf_haproxy.serf.events import name_fault
    from serf_haproxy.system.notify import take_notifier

    if not 1 <= args.max <= 200:
        raise InputError(f"--max {args.max}: allowed is 1 to 200")
    if args.prefix and (fault := name_fault(args.prefix)):
        raise InputError(f"--prefix: {fault}")
    ports = read_range(args.ports)
    if (ports[1] - ports[0] + 1) // 2 < args.max:
        raise InputError(f"--ports: {args.max} nodes (--max) need {2 * args.max} ports or more")
    secret_file = os.environ.get("SERF_PROOF_SECRET_FILE", "")
    secrets = read_secret_file(secret_file, "SERF_PROOF_SECRET_FILE")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the loop takes it; PID 1 would ignore it
    logging.basicConfig(level="INFO", handlers=[make_handler("logfmt", os.environ)], force=True)
    notifier = take_notifier(os.environ)
    crew = Crew(make_cluster(args.join, os.environ), secrets[0] if secrets else None, ports)
    Companion(Rules(args.socket, args.prefix, args.max), crew, notifier).run()
    return 0
