"""serf-haproxy ready: a readiness probe."""

import argparse
import os
from typing import Any

from serf_haproxy.errors import EXIT_SYSTEM, HaproxyFault
from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `ready`."""
    text = "Exit with 0 when all that is named is ready; else with 111."
    parser = commands.add_parser("ready", help=text, description=text)
    parser.set_defaults(command=ready)
    what = "haproxy: a worker runs; configuration: it runs the configuration last published; "
    what += "cluster: the last pass found this balancer not alone, unless all others have left"
    parser.add_argument("what", nargs="+", choices=["haproxy", "configuration", "cluster"], help=what)


def ready(args: argparse.Namespace) -> int:
    """Return 0 when all that is named is ready; else 111."""
    from serf_haproxy.control.apply import runs_published
    from serf_haproxy.control.edges import make_edges
    from serf_haproxy.control.outcome import ALONE

    edges = make_edges(load_settings(os.environ))
    if "cluster" in args.what and edges.state.read_record().has_condition(ALONE):
        return EXIT_SYSTEM
    if "configuration" in args.what and not runs_published(edges):
        return EXIT_SYSTEM
    try:
        return 0 if "haproxy" not in args.what or edges.master.read_account().worker_count else EXIT_SYSTEM
    except HaproxyFault:
        return EXIT_SYSTEM
