"""serf-haproxy schema: print a JSON Schema of the services file."""

import argparse
import json
import sys
from typing import Any


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `schema`."""
    text = "Print a JSON Schema of the services file, for editors."
    parser = commands.add_parser("schema", help=text, description=text)
    parser.set_defaults(command=print_schema)


def print_schema(_: argparse.Namespace) -> int:
    """Print the schema."""
    from serf_haproxy.services.schema import make_schema

    sys.stdout.write(json.dumps(make_schema(), indent=2) + "\n")
    return 0
