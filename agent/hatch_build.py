"""Add the man page and the shell completions, made from the command line's parser, to the wheel.

Usage by hand: .venv/bin/python agent/hatch_build.py DIR writes them to DIR, laid out as below /usr/share.

The man page is made at build time by argparse-manpage. Where that is missing, as in the build of the images, the wheel
goes without it: the program does not need it.
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
MAN_PAGE = "man/man1/serf-haproxy.1"
DESCRIPTION = """Serf's membership events become node files; the daemon turns node files into HAProxy's servers, at run
time where HAProxy can, else by a reload, and confirms what HAProxy runs."""
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
        if not has_manpage():
            self.app.display_warning("no man page: argparse-manpage is missing")
        share_dir = Path(self.root, "dist", "share")
        for path in write_share(share_dir):
            build_data["shared_data"][str(share_dir / path)] = f"share/{path}"


def write_share(share_dir: Path) -> list[str]:
    """Write the man page and the completions below a directory; return their paths in it."""
    sys.path.insert(0, str(AGENT_DIR))
    texts = {path: make_completion(shell) for shell, path in COMPLETIONS.items()}
    texts |= {MAN_PAGE: make_man_page()} if has_manpage() else {}
    for path, text in texts.items():
        (share_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (share_dir / path).write_text(text)
    return list(texts)


def has_manpage() -> bool:
    """Return whether the man page can be made here."""
    return importlib.util.find_spec("argparse_manpage") is not None


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
    from serf_haproxy.cli import completion
    from serf_haproxy.cli.main import build_parser

    return completion.make_completion(build_parser(), shell)


def list_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of all its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from list_parsers(command)


if __name__ == "__main__":
    write_share(Path(sys.argv[1]))
