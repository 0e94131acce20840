"""serf-haproxy boot: a configuration with which HAProxy can start."""

import argparse
import os
from typing import Any

from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `boot`."""
    text = "Make the directories, and publish the best configuration that HAProxy accepts, for its start."
    parser = commands.add_parser("boot", help=text, description=text)
    parser.set_defaults(command=boot)
    text = "change nothing where HAProxy accepts the configuration that is there"
    parser.add_argument("--if-broken", action="store_true", help=text)


def boot(args: argparse.Namespace) -> int:
    """Make the directories, and publish the best configuration that HAProxy accepts."""
    from serf_haproxy.control.boot import boot as publish_best
    from serf_haproxy.control.directories import prepare_directories
    from serf_haproxy.serf.printing import printable

    settings = load_settings(os.environ)
    prepare_directories(settings)
    print(printable(publish_best(settings, is_if_broken=args.if_broken)))
    return 0
