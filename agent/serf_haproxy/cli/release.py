"""serf-haproxy release: end the hold of lost servers."""

import argparse
import os
from typing import Any

from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `release`."""
    text = "Remove the servers that are held because too many were lost at once."
    commands.add_parser("release", help=text, description=text).set_defaults(command=release)


def release(_args: argparse.Namespace) -> int:
    """Order the next pass to end every hold, and wake the daemon."""
    from serf_haproxy.control import state
    from serf_haproxy.control.goal import read_pool
    from serf_haproxy.serf.wake import wake

    settings = load_settings(os.environ)
    held = read_pool(settings).held
    state.release(settings)
    is_heard = wake(settings.wake_fifo)
    when = "" if is_heard else ", once the daemon runs"
    print(f"{len(held)} servers are let go{when}: {' '.join(held)}".rstrip(": "))
    return 0
