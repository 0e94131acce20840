"""Add the man page and the shell completions, made from the command line's parser, to the wheel.

Usage by hand: .venv/bin/python agent/hatch_build.py DIR writes them to DIR, laid out as below /usr/share.

They are made at build time by argparse-manpage and shtab. Where these are missing, as in the build of the images, the
wheel goes without them: the program needs neither.
"""

import argparse
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

AGENT_DIR = Path(__file__).parent
COMPLETIONS = {
    "bash": "bash-completion/completions/serf-haproxy",
    "fish": "fish/vendor_completions.d/serf-haproxy.fish",
    "zsh": "zsh/site-functions/_serf-haproxy",
}
PATHS = {"PATH": "FILE", "DIR": "DIRECTORY"}  # placeholder of an option's value -> what shtab completes it with
MAN_PAGE = "man/man1/serf-haproxy.1"
DESCRIPTION = """Serf's membership events become node files; the daemon turns node files into HAProxy's servers, at run
time where HAProxy can, else by a reload, and confirms what HAProxy runs."""
TOOLS = ("argparse_manpage", "shtab")
SEE_ALSO = """
.SH EXIT STATUS
.TP
0
success
.TP
100
wrong input: usage, settings, template or configuration; a person must change it
.TP
111
a system failure; it may heal by itself
.SH ENVIRONMENT
Every setting is a variable SERF_HAPROXY_NAME.
.B serf\\-haproxy check
validates them.
.SH SEE ALSO
.BR haproxy (1)
"""


class WideFormatter(argparse.HelpFormatter):
    """A formatter that breaks no line, whatever the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=10_000)


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc, unused-ignore, type-arg]
    """The hook that hatchling calls before it builds the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Write the files and name them as shared data."""
        if any(importlib.util.find_spec(tool) is None for tool in TOOLS):
            self.app.display_warning("no man page and no completions: argparse-manpage or shtab is missing")
            return
        share_dir = Path(self.root, "dist", "share")
        for path in write_share(share_dir):
            build_data["shared_data"][str(share_dir / path)] = f"share/{path}"


def write_share(share_dir: Path) -> list[str]:
    """Write the man page and the completions below a directory; return their paths in it."""
    sys.path.insert(0, str(AGENT_DIR))
    texts = {MAN_PAGE: make_man_page()} | {path: make_completion(shell) for shell, path in COMPLETIONS.items()}
    for path, text in texts.items():
        (share_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (share_dir / path).write_text(text)
    return list(texts)


def make_man_page() -> str:
    """Return the man page, the same for every day and terminal."""
    from argparse_manpage.manpage import Manpage

    from serf_haproxy import __version__
    from serf_haproxy.cli.main import build_parser

    parser = build_parser()
    for command in list_parsers(parser):
        command.description = None  # the page would repeat the help text
        command.formatter_class = WideFormatter
    parser.description = DESCRIPTION
    data = {
        "description": "keep HAProxy's servers equal to the members of a Serf cluster",
        "manual_title": "User Commands",
        "project_name": "serf-haproxy",
        "version": __version__,
    }
    text = str(Manpage(parser, format="single-commands-section", _data=data))
    return re.sub(r'^(\.TH \S+ "1") "[^"]*"', r'\1 ""', text, count=1, flags=re.MULTILINE).rstrip() + SEE_ALSO


def make_completion(shell: str) -> str:
    """Return the completion script for bash, fish or zsh."""
    import shtab

    from serf_haproxy.cli.main import build_parser

    parser = build_parser()
    for command in list_parsers(parser):
        for action in command._actions:
            if action.metavar in PATHS:
                action.complete = getattr(shtab, PATHS[action.metavar])  # type: ignore[attr-defined, unused-ignore]
    return str(shtab.complete(parser, shell=shell)).rstrip() + "\n"


def list_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of all its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from list_parsers(command)


if __name__ == "__main__":
    write_share(Path(sys.argv[1]))
