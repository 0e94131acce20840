"""serf-haproxy check: validate settings, template and configuration."""

import argparse
import os
import sys
from typing import Any

from serf_haproxy.errors import EXIT_INPUT
from serf_haproxy.settings import load_settings, unknown_variables


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `check`."""
    text = "Check the settings, the template and the resulting configuration; change nothing."
    commands.add_parser("check", help=text, description=text).set_defaults(command=check)


def check(_args: argparse.Namespace) -> int:
    """Check the settings, the template and the resulting configuration; change nothing."""
    import tempfile

    from serf_haproxy.control.preview import preview_config
    from serf_haproxy.haproxy.config_file import ConfigFile
    from serf_haproxy.serf.printing import printable

    settings = load_settings(os.environ)
    for name in unknown_variables(os.environ):
        print(f"serf-haproxy: {name}: there is no such setting; see docs/reference/settings.md", file=sys.stderr)
    text = preview_config(settings).text
    with tempfile.TemporaryDirectory(prefix="serf-haproxy-check-") as directory:
        path = os.path.join(directory, "haproxy.cfg")
        words = ConfigFile(path, settings.haproxy_bin, settings.check_timeout_s).check(text)
    if words is not None:
        print(
            "serf-haproxy: HAProxy refuses the configuration; 'serf-haproxy render' prints it\n"
            + "\n".join(map(printable, words.split("\n"))),
            file=sys.stderr,
        )
        return EXIT_INPUT
    print(f"settings, template and configuration are valid ({text.count(chr(10))} lines)")
    return 0
