"""serf-haproxy ready: a readiness probe."""

import argparse
import os
from typing import Any

from serf_haproxy.errors import EXIT_SYSTEM, HaproxyFault
from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `ready`."""
    text = "Exit with 0 when HAProxy's worker runs, or runs the configuration last published; else with 111."
    parser = commands.add_parser("ready", help=text, description=text)
    parser.set_defaults(command=ready)
    what = "haproxy: a worker runs; configuration: it runs the configuration last published"
    parser.add_argument("what", choices=["haproxy", "configuration"], help=what)


def ready(args: argparse.Namespace) -> int:
    """Return 0 when HAProxy's worker runs, or runs the configuration last published; else 111."""
    from serf_haproxy.control.apply import runs_published
    from serf_haproxy.haproxy import runtime

    settings = load_settings(os.environ)
    if args.what == "configuration":
        return 0 if runs_published(settings) else EXIT_SYSTEM
    try:
        return 0 if runtime.read_master(settings).worker_count else EXIT_SYSTEM
    except HaproxyFault:
        return EXIT_SYSTEM
