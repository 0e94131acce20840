"""Add the man page and the shell completions, made from the command line's parser, to the wheel.

Usage by hand: .venv/bin/python agent/hatch_build.py DIR writes them to DIR, laid out as below /usr/share.
"""

import argparse
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


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc, unused-ignore, type-arg]
    """The hook that hatchling calls before it builds the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Write the files and name them as shared data."""
        share_dir = Path(self.root, "dist", "share")
        for path in write_share(share_dir):
            build_data["shared_data"][str(share_dir / path)] = f"share/{path}"


def write_share(share_dir: Path) -> list[str]:
    """Write the man page and the completions below a directory; return their paths in it."""
    sys.path.insert(0, str(AGENT_DIR))
    texts = {path: make_completion(shell) for shell, path in COMPLETIONS.items()}
    texts[MAN_PAGE] = make_man_page()
    for path, text in texts.items():
        (share_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (share_dir / path).write_text(text)
    return list(texts)


def make_man_page() -> str:
    """Return the man page, the same for every day and terminal."""
    from serf_haproxy import __version__
    from serf_haproxy.cli.main import build_parser

    parser = build_parser()
    lines = [
        f'.TH SERF-HAPROXY 1 "" "serf-haproxy {__version__}" "User Commands"',
        ".ad l",
        ".nh",
        ".SH NAME",
        escape("serf-haproxy - keep HAProxy's servers equal to the members of a Serf cluster"),
        ".SH SYNOPSIS",
        ".B serf\\-haproxy",
        "[\\-\\-version] COMMAND ...",
        ".SH DESCRIPTION",
        escape(DESCRIPTION),
        ".SH COMMANDS",
    ]
    for command, text in list_commands(parser):
        lines += [f".SS {escape(command.prog)}", escape(text)]
        actions = [each for each in command._actions if each.help and each.help != argparse.SUPPRESS]
        for action in actions:
            if isinstance(action, argparse._HelpAction):
                continue
            lines += [".TP", f".B {escape(name_action(action))}", escape(str(action.help))]
    return "\n".join(lines) + SEE_ALSO


def name_action(action: argparse.Action) -> str:
    """Return an option or argument as it is typed, with a placeholder for its value."""
    value = "|".join(map(str, action.choices)) if action.choices else action.metavar or action.dest
    words = [", ".join(action.option_strings), "" if action.nargs == 0 else str(value)]
    return " ".join(filter(None, words))


def escape(text: str) -> str:
    """Return a text so that roff shows it as it is."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def make_completion(shell: str) -> str:
    """Return the completion script for bash, fish or zsh."""
    from serf_haproxy.cli import completion
    from serf_haproxy.cli.main import build_parser

    return completion.make_completion(build_parser(), shell)


def list_commands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Yield the parser of each command below a parser, those of groups before their commands, with its help text."""
    for group in parser._actions:
        if isinstance(group, argparse._SubParsersAction):
            for choice in group._choices_actions:
                yield group.choices[choice.dest], str(choice.help)
                yield from list_commands(group.choices[choice.dest])


if __name__ == "__main__":
    write_share(Path(sys.argv[1]))
