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

    from serf_haproxy.control.reconcile import prepare_directories, reconcile
    from serf_haproxy.serf.client import Link

    logging.basicConfig(level=logging.WARNING, format="serf-haproxy: %(message)s")
    settings = load_settings(os.environ)
    prepare_directories(settings)
    link = Link(settings, patience_s=0.0)
    try:
        outcome = reconcile(settings, link.ask)
    finally:
        link.close()
    for problem in outcome.problems:
        print(f"serf-haproxy: {problem}", file=sys.stderr)
    print(f"{outcome.verdict} {outcome.reason}")
    return outcome.verdict.exit_code
