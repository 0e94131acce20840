"""serf-haproxy render: print the configuration."""

import argparse
import os
import sys
from typing import Any

from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `render`."""
    text = "Print the configuration for the present node files."
    parser = commands.add_parser("render", help=text, description=text)
    parser.set_defaults(command=render)
    parser.add_argument("--output", metavar="PATH", help="write the configuration to this file instead, durably")


def render(args: argparse.Namespace) -> int:
    """Print the configuration for the present node files, or write it to a file."""
    from serf_haproxy.control.preview import find_config, preview

    settings = load_settings(os.environ)
    found = preview(settings)
    text = find_config(settings, found).text
    if found.silence:
        print(f"serf-haproxy: warning: {found.silence}", file=sys.stderr)
    if args.output:
        from serf_haproxy.system.files import write_durably

        write_durably(os.path.abspath(args.output), text)
    else:
        sys.stdout.write(text)
    return 0
