"""serf-haproxy run: the daemon."""

import argparse
import os
from typing import Any

from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `run`."""
    text = "Run the daemon: apply every change of the cluster to HAProxy until SIGTERM."
    parser = commands.add_parser("run", help=text, description=text)
    parser.set_defaults(command=run)
    parser.add_argument("--notify-fd", type=int, metavar="FD", help="file descriptor for s6's readiness notification")
    levels = ["debug", "info", "warning", "error"]
    parser.add_argument("--log-level", default="info", choices=levels, help="lowest level that is logged (info)")


def run(args: argparse.Namespace) -> int:
    """Run the daemon until it is told to stop."""
    import logging

    from serf_haproxy.daemon.log import LineFormatter, LossyHandler
    from serf_haproxy.daemon.loop import Daemon

    handler = LossyHandler(2)
    handler.setFormatter(LineFormatter("level=%(levelname)s msg=%(message)r"))
    logging.basicConfig(level=args.log_level.upper(), handlers=[handler], force=True)
    Daemon(lambda: load_settings(os.environ), args.notify_fd).run()
    return 0
