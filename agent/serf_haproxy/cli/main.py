"""The command line: build the parser, run the command that was named, return its exit code."""

import argparse
import os
import sys
from typing import NoReturn

from serf_haproxy import __version__
from serf_haproxy.cli import (
    autoscale,
    boot,
    check,
    companion,
    completion,
    doctor,
    explain,
    history,
    install,
    lab,
    maint,
    once,
    pause,
    plan,
    proof,
    ready,
    release,
    reload,
    render,
    run,
    schema,
    settings,
    standby,
    status,
    watch,
    web,
)
from serf_haproxy.errors import EXIT_INPUT, EXIT_SYSTEM, SerfHaproxyError
from serf_haproxy.serf.printing import printable
from serf_haproxy.system.users import leave_root

# In the order in which the help lists them. Each module has `add_parser(commands)`.
COMMANDS = (
    *(run, autoscale, companion, once, check, plan, render, boot, maint, pause, standby, release, reload, history),
    *(proof, status, watch, explain, doctor, ready, settings, schema, completion, web, install, lab),
)


class Parser(argparse.ArgumentParser):
    """A parser that exits with 100 for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_INPUT, f"{self.prog}: {message}\n")


def main() -> int:
    """Run one command; return its exit code: 0, 100 for wrong input, 111 for a system failure."""
    try:
        args = build_parser().parse_args()
        if not getattr(args, "keeps_root", False):
            leave_root(os.environ)
        code: int = args.command(args)
        sys.stdout.flush()
    except SerfHaproxyError as error:
        for line in str(error).split("\n"):
            print(f"serf-haproxy: {printable(line)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SYSTEM
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands and their options.

    Its help texts also become the man page, the completions and the reference page of the commands.
    """
    parser = Parser(prog="serf-haproxy", description="Keep HAProxy's servers equal to the members of a Serf cluster.")
    parser.add_argument("--version", action="version", version=__version__, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add_parser(commands)
    parser.set_defaults(parser=parser)  # from which `completion` makes its scripts
    return parser
