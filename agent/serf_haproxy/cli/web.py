"""serf-haproxy web: metrics and the page over HTTP."""

import argparse
import os
from typing import Any

from serf_haproxy.errors import EXIT_SYSTEM, InputError, SystemFault
from serf_haproxy.settings import load_settings, variable


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `web`."""
    text = "Serve metrics, status and the page over HTTP; the daemon starts it and feeds its standard input."
    parser = commands.add_parser("web", help=text, description=text)
    parser.set_defaults(command=web)


def web(_args: argparse.Namespace) -> int:
    """Serve until standard input ends."""
    import logging

    from serf_haproxy.daemon.log import make_handler
    from serf_haproxy.web.process import serve

    settings = load_settings(os.environ)
    if not settings.web_bind:
        raise InputError(f"set {variable('web_bind')}, such as to 127.0.0.1:1940")
    logging.basicConfig(level="INFO", handlers=[make_handler(settings.log_format, os.environ)], force=True)
    try:
        serve(settings)
    except SystemFault as error:  # one line of the daemon's log, in its format
        logging.getLogger("serf-haproxy").error("%s", error)
        return EXIT_SYSTEM
    return 0
