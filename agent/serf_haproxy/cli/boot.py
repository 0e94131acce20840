"""serf-haproxy boot: a configuration with which HAProxy can start."""

import argparse
import os
from typing import Any

from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `boot`."""
    text = "Make the directories; replace a missing or broken configuration by the best one that HAProxy accepts."
    commands.add_parser("boot", help=text, description=text).set_defaults(command=boot)


def boot(_args: argparse.Namespace) -> int:
    """Replace a missing or broken configuration by the best one that HAProxy accepts."""
    from serf_haproxy.control.boot import boot as put_best
    from serf_haproxy.control.reconcile import prepare_directories

    settings = load_settings(os.environ)
    prepare_directories(settings)
    print(put_best(settings))
    return 0
