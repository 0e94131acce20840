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
    from serf_haproxy.control import fallback
    from serf_haproxy.control.directories import prepare_directories
    from serf_haproxy.control.preview import preview
    from serf_haproxy.serf.printing import printable

    settings = load_settings(os.environ)
    prepare_directories(settings)
    found = preview(settings)
    print(printable(fallback.boot(settings, found.edges, found.renderer, found.decision.servers)))
    return 0
