"""serf-haproxy settings: print the settings that count here, where each comes from, or their schema."""

import argparse
import json
import os
from typing import Any

from serf_haproxy.settings import load_with_origins


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `settings`."""
    text = "Print the settings that count here, as a settings file has them."
    parser = commands.add_parser("settings", help=text, description=text)
    parser.set_defaults(command=print_settings)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--origin", action="store_true", help="say where each comes from: a variable, a file, the default")
    how.add_argument("--schema", action="store_true", help="print a JSON Schema of the settings file, for editors")


def print_settings(args: argparse.Namespace) -> int:
    """Print the settings."""
    from serf_haproxy.settings.schema import format_settings, make_schema

    if args.schema:
        print(json.dumps(make_schema(), indent=2))
    else:
        print(format_settings(load_with_origins(os.environ), has_origins=args.origin))
    return 0
