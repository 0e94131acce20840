"""serf-haproxy doctor: look at all that a balancer needs."""

import argparse
import os
import sys
from typing import Any


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `doctor`."""
    text = "Look at all that a balancer needs; say what is wrong with one remedy a line; exit with 0 or 1."
    commands.add_parser("doctor", help=text, description=text).set_defaults(command=doctor)


def doctor(_args: argparse.Namespace) -> int:
    """Look at all that a balancer needs; return 0 when all is well, else 1."""
    from serf_haproxy.serf.printing import printable
    from serf_haproxy.show.doctor import examine

    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    good, bad = ("\u221a", "\u00d7") if is_unicode else ("ok", "NO")
    bad_count = 0
    for check in examine(os.environ):
        bad_count += not check.is_good
        remedy = f": {printable(check.remedy)}" if check.remedy else ""
        print(f"{good if check.is_good else bad} {printable(check.what)}{remedy}", flush=True)
    return int(bad_count > 0)
