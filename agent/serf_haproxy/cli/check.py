"""serf-haproxy check: validate settings, services, template and configuration."""

import argparse
import os
import sys
from typing import Any

from serf_haproxy.errors import EXIT_INPUT
from serf_haproxy.settings import load_settings, unknown_variables


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `check`."""
    text = "Check the settings, the services, the template and the resulting configuration; change nothing."
    commands.add_parser("check", help=text, description=text).set_defaults(command=check)


def check(_args: argparse.Namespace) -> int:
    """Check the settings, the services, the template and the resulting configuration; change nothing."""
    import tempfile

    from serf_haproxy.control.certificates import Certificates
    from serf_haproxy.control.preview import find_config, preview, preview_vetted
    from serf_haproxy.haproxy.config_file import ConfigFile
    from serf_haproxy.serf.printing import printable

    settings = load_settings(os.environ)
    for name in unknown_variables(os.environ):
        print(f"serf-haproxy: {name}: there is no such setting; see docs/reference/settings.md", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="serf-haproxy-check-") as directory:
        # The daemon's copies of certificates may not be there yet, and only the daemon writes them.
        settings = settings.replace(certificate_copies_dir=os.path.join(directory, "certificates"))
        path = os.path.join(directory, "haproxy.cfg")
        config_file = ConfigFile(path, settings.haproxy_bin, settings.check_timeout_s)
        found = preview(settings, are_copies_written=True)
        found = found._replace(edges=found.edges._replace(config_file=config_file))
        # The machine may be another one than the balancer, so its listeners say nothing.
        found = preview_vetted(settings, found, is_listening_tried=False)
        faults = found.snapshot.services.faults + Certificates(settings).refresh(None)
        for fault in faults:
            print(f"serf-haproxy: {printable(fault)}", file=sys.stderr)
        text = find_config(settings, found).text
        words = config_file.check(text)
    if words is not None:
        print(
            "serf-haproxy: HAProxy refuses the configuration; 'serf-haproxy render' prints it\n"
            + "\n".join(map(printable, words.split("\n"))),
            file=sys.stderr,
        )
        return EXIT_INPUT
    if faults:
        return EXIT_INPUT
    services = ", ".join(service.name for service in found.snapshot.services.listed)
    lines = text.count("\n")
    print(f"settings, services, template and configuration are valid ({lines} lines; services: {services})")
    return 0
