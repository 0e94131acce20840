"""serf-haproxy ready: a readiness probe."""

import argparse
import os
from typing import Any

from serf_haproxy.errors import EXIT_SYSTEM, HaproxyFault, InputError
from serf_haproxy.settings import Settings, load_settings


class _Names(tuple[str, ...]):
    """The choices of an argument that may be absent: argparse compares the empty list with them too."""

    __slots__ = ()

    def __contains__(self, value: object) -> bool:
        return value == [] or super().__contains__(value)


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `ready`."""
    text = "Exit with 0 when all that is named is ready; else with 111."
    parser = commands.add_parser("ready", help=text, description=text)
    parser.set_defaults(command=ready)
    what = "haproxy: a worker runs; configuration: it runs the configuration last published; "
    what += "cluster: the last pass found this balancer not alone, unless all others have left"
    names = _Names(("haproxy", "configuration", "cluster"))
    parser.add_argument("what", nargs="*", choices=names, help=what)
    purpose = (
        "traffic: requests should come here. It prints why not, and exits with 1 for a balancer that serves, but by "
    )
    purpose += "old news. The program ready_for_traffic says the same for a fraction of the cost"
    parser.add_argument("--for", dest="purpose", choices=["traffic"], help=purpose)
    parser.add_argument("--allow-stale", action="store_true", help="with --for: exit with 0 instead of 1")
    service = (
        "with --for: this service needs a server that is up; can be repeated; without it one server of any is enough"
    )
    parser.add_argument("--service", action="append", default=[], metavar="NAME", help=service)


def ready(args: argparse.Namespace) -> int:
    """Return 0 when all that is named is ready; else 111, or 1 for a balancer that is only stale."""
    settings = load_settings(os.environ)
    if not args.what and not args.purpose:
        raise InputError("ready: name what is to be ready, or --for traffic")
    if args.what and (code := _look_at(args.what, settings)):
        return code
    return _look_for_traffic(args, settings) if args.purpose else 0


def _look_at(what: list[str], settings: Settings) -> int:
    from serf_haproxy.control.apply import runs_published
    from serf_haproxy.control.edges import make_edges
    from serf_haproxy.control.outcome import ALONE
    from serf_haproxy.haproxy.socket import PROMPT

    edges = make_edges(settings, PROMPT)
    if "cluster" in what and edges.state.read_record().has_condition(ALONE):
        return EXIT_SYSTEM
    if "configuration" in what and not runs_published(edges):
        return EXIT_SYSTEM
    try:
        return 0 if "haproxy" not in what or edges.master.read_account().worker_count else EXIT_SYSTEM
    except HaproxyFault:
        return EXIT_SYSTEM


def _look_for_traffic(args: argparse.Namespace, settings: Settings) -> int:
    from serf_haproxy.haproxy import readiness

    place = readiness.Place(os.path.dirname(settings.wake_fifo), settings.runtime_socket, settings.master_socket)
    code, text = readiness.look(place, tuple(args.service))
    print(readiness.describe(code, text))
    return readiness.READY if args.allow_stale and code == readiness.STALE else code
