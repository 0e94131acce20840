"""serf-haproxy web: metrics and the page over HTTP."""

import argparse
import os
from typing import Any

from serf_haproxy.errors import InputError
from serf_haproxy.settings import load_settings, variable


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `web`."""
    text = "Serve metrics, status and the page over HTTP; the daemon starts it and feeds its standard input."
    parser = commands.add_parser("web", help=text, description=text)
    parser.set_defaults(command=web)


def web(_args: argparse.Namespace) -> int:
    """Serve until standard input ends."""
    import logging

    from serf_haproxy.daemon.log import LineFormatter, LossyHandler
    from serf_haproxy.web.process import serve

    settings = load_settings(os.environ)
    if not settings.web_bind:
        raise InputError(f"set {variable('web_bind')}, such as to 127.0.0.1:1940")
    handler = LossyHandler(2)
    handler.setFormatter(LineFormatter("level=%(levelname)s msg=%(message)r"))
    logging.basicConfig(level="INFO", handlers=[handler], force=True)
    serve(settings)
    return 0
