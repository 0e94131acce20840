"""serf-haproxy completion: print a shell's completion script."""

import argparse
import os
import sys
import sysconfig
from typing import Any

from serf_haproxy.errors import InputError
from serf_haproxy.system.files import read_text

_PLACES = {
    "bash": "bash-completion/completions/serf-haproxy",
    "fish": "fish/vendor_completions.d/serf-haproxy.fish",
    "zsh": "zsh/site-functions/_serf-haproxy",
}


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `completion`."""
    text = "Print the completion script of a shell: source <(serf-haproxy completion bash)."
    parser = commands.add_parser("completion", help=text, description=text)
    parser.set_defaults(command=print_completion)
    parser.add_argument("shell", choices=sorted(_PLACES), help="the shell")


def print_completion(args: argparse.Namespace) -> int:
    """Print the script that was installed with the program."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    directories = [os.path.join(sysconfig.get_path("data"), "share"), os.path.join(here, "dist", "share")]
    for directory in directories:
        if text := read_text(os.path.join(directory, _PLACES[args.shell])):
            sys.stdout.write(text)
            return 0
    raise InputError(f"{directories[0]} has no completions; in a checkout `make man` writes them")
