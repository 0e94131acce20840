"""serf-haproxy once: one pass."""

import argparse
import os
import sys
from typing import Any

from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `once`."""
    text = "Make one pass, print its outcome and exit with its exit code."
    commands.add_parser("once", help=text, description=text).set_defaults(command=once)


def once(_args: argparse.Namespace) -> int:
    """Make one pass; return the exit code of its outcome."""
    import logging

    from serf_haproxy.control.directories import prepare_directories
    from serf_haproxy.control.edges import find_serf
    from serf_haproxy.control.reconcile import reconcile
    from serf_haproxy.daemon.log import LineFormatter
    from serf_haproxy.serf.client import Client
    from serf_haproxy.serf.printing import printable

    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("serf-haproxy: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    settings = load_settings(os.environ)
    prepare_directories(settings)
    client = Client(find_serf(settings), settings.hints, patience_s=0.0)
    try:
        outcome = reconcile(settings, client.ask)
    finally:
        client.close()
    for problem in outcome.problems:
        print(f"serf-haproxy: {printable(problem)}", file=sys.stderr)
    print(f"{outcome.verdict} {printable(outcome.reason)}")
    for condition in outcome.conditions:
        print(f"{condition.name.upper()} {printable(condition.reason)}")
    return outcome.verdict.exit_code
