"""serf-haproxy run: the daemon."""

import argparse
import os
from typing import Any

from serf_haproxy.settings import describe_unknown, load_settings, load_with_origins


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

    from serf_haproxy.daemon.bulletin import Bulletin
    from serf_haproxy.daemon.greeting import describe_start
    from serf_haproxy.daemon.log import make_handler
    from serf_haproxy.daemon.loop import Daemon
    from serf_haproxy.system.notify import take_notifier

    bulletin = Bulletin(take_notifier(os.environ), args.notify_fd)
    loaded = load_with_origins(os.environ)
    handler = make_handler(loaded.settings.log_format, os.environ)
    logging.basicConfig(level=args.log_level.upper(), handlers=[handler], force=True)

    def greet() -> None:
        log = logging.getLogger("serf-haproxy")
        for line in describe_unknown(os.environ):
            log.warning("%s", line)
        log.info("%s", describe_start(loaded))

    Daemon(lambda: load_settings(os.environ), bulletin).run(greet)
    return 0
