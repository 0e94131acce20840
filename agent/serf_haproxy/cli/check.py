"""serf-haproxy check: validate settings, services, template and configuration."""

import argparse
import os
import sys
from typing import Any

from serf_haproxy.errors import EXIT_INPUT
from serf_haproxy.settings import describe_unknown, load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `check`."""
    text = "Check the settings, the services, the template and the resulting configuration; change nothing."
    commands.add_parser("check", help=text, description=text).set_defaults(command=check)


def check(_args: argparse.Namespace) -> int:
    """Check the settings, the services, the template and the resulting configuration; change nothing."""
    from serf_haproxy.control.trial import try_config
    from serf_haproxy.serf.printing import printable
    from serf_haproxy.services.options import find_advice

    settings = load_settings(os.environ)
    trial = try_config(settings)
    faults = (*describe_unknown(os.environ), *trial.faults)
    for fault in faults:
        print(f"serf-haproxy: {printable(fault)}", file=sys.stderr)
    if trial.words is not None:
        print(
            "serf-haproxy: HAProxy refuses the configuration; 'serf-haproxy render' prints it\n"
            + "\n".join(map(printable, trial.words.split("\n"))),
            file=sys.stderr,
        )
        return EXIT_INPUT
    if faults:
        return EXIT_INPUT
    for service in trial.services:
        for line in find_advice(service):
            print(f"serf-haproxy: warning: service {service.name}: {line}", file=sys.stderr)
    if trial.silence:
        print(f"serf-haproxy: warning: {trial.silence}", file=sys.stderr)
    services, lines = ", ".join(service.name for service in trial.services), trial.text.count("\n")
    print(f"settings, services, template and configuration are valid ({lines} lines; services: {services})")
    return 0
