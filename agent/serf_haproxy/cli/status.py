"""serf-haproxy status: every node, its state and the reason."""

import argparse
import json
import os
from typing import Any

from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `status`."""
    text = "Show every node: what Serf said, what was decided, and HAProxy's view."
    parser = commands.add_parser("status", help=text, description=text)
    parser.set_defaults(command=status)
    parser.add_argument("--json", action="store_true", help="print JSON")


def status(args: argparse.Namespace) -> int:
    """Show every node: what Serf said, what was decided, and HAProxy's view."""
    from serf_haproxy.control.report import format_status, read_status

    report = read_status(load_settings(os.environ))
    print(json.dumps(report, indent=1) if args.json else format_status(report))
    return 0
