"""serf-haproxy autoscale: servers that come and go with the load."""

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from serf_haproxy.settings import load_settings
from serf_haproxy.system.notify import Notifier, take_notifier

if TYPE_CHECKING:
    from serf_haproxy.settings import Settings


_PAUSE_S = 3.0


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `autoscale`."""
    text = "Start and stop servers with the load of the services whose tables have a table 'scale', until SIGTERM."
    parser = commands.add_parser("autoscale", help=text, description=text)
    parser.set_defaults(command=autoscale)
    dry = "look for some seconds, print what would be done, and exit; nothing is started, stopped or ordered"
    parser.add_argument("--dry-run", action="store_true", help=dry)


def autoscale(args: argparse.Namespace) -> int:
    """Scale until told to stop, or say what would be done."""
    settings = load_settings(os.environ)
    if args.dry_run:
        return _look(settings)
    notifier = take_notifier(os.environ)
    _wait_for_work(os.path.join(settings.state_dir, "services.json"), notifier)
    import logging

    from serf_haproxy.autoscale.loop import Autoscaler
    from serf_haproxy.daemon.log import make_handler

    logging.basicConfig(level="INFO", handlers=[make_handler(settings.log_format, os.environ)], force=True)
    Autoscaler(settings, notifier).run()
    return 0


def _wait_for_work(path: str, notifier: Notifier) -> None:
    """Wait until a service scales, by the tables that are in force; that is most balancers' whole work."""
    notifier.tell_ready()
    notifier.tell_status("no service scales")
    while True:
        try:
            with open(path, "rb") as file:
                if b'"scale"' in file.read():
                    return
        except OSError:  # the daemon has not run yet
            pass
        notifier.beat()
        time.sleep(_PAUSE_S)


def _look(settings: "Settings") -> int:
    from serf_haproxy.autoscale.loop import Autoscaler
    from serf_haproxy.serf.printing import printable

    autoscaler = Autoscaler(settings, Notifier(), is_dry=True)
    is_first = autoscaler.watch()
    for name, pilot in sorted(autoscaler.fleet.pilots.items()):
        if pilot.plan is None or pilot.reading is None:
            continue
        print(f"{name}: {pilot.plan.have} of {pilot.rules.max} servers, {pilot.reading.demand} requests at once")
        print(f"  {printable(pilot.plan.reason)}")
        for line in pilot.dry_run() or ["nothing is to be done"]:
            print(f"  {line}")
    if not autoscaler.fleet.pilots:
        print("no service scales: no table of the services file that is in force has a table 'scale'")
    elif not is_first:
        print("another balancer decides")
    return 0
