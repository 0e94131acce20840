"""Write the generated parts of the reference: the table of settings and the list of commands.

Usage: .venv/bin/python docs/generate.py

A generated part stands between `<!-- NAME -->` and `<!-- end -->`. The rest of a page is written by hand.
"""

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from serf_haproxy.cli.main import build_parser
from serf_haproxy.settings import Settings, variable

REFERENCE_DIR = Path(__file__).parent / "reference"
BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def list_settings() -> str:
    """Return the table of all settings, in the order of the class `Settings`."""
    lines = ["| Variable | Allowed | Default | Meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(Settings):
        default = f"`{field.metadata['default']}`" if field.metadata["default"] else "empty"
        cells = (f"`{variable(field.name)}`", field.metadata["kind"].allowed, default, field.metadata["doc"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def list_commands() -> str:
    """Return a section for every command, with its options."""
    return "\n".join(
        section for name, help_, parser in walk(build_parser()) for section in describe(name, help_, parser)
    )


def walk(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield name, help text and parser of every command below a parser, depth first."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                if name in helps:
                    yield command.prog, helps[name], command
                    yield from walk(command)


def describe(name: str, help_: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines of one command: title, help text, synopsis, table of options."""
    hidden = (argparse._HelpAction, argparse._VersionAction)
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    actions = [action for action in actions if not isinstance(action, hidden)]
    nested = any(isinstance(action, argparse._SubParsersAction) for action in actions)
    yield f"{'#' * (len(name.split()))} {name}\n"
    yield f"{help_}\n"
    synopsis = "COMMAND ..." if nested else " ".join(synopsis_of(action) for action in actions)
    yield f"```\n{f'{name} {synopsis}'.strip()}\n```\n"
    rows = [f"| `{title_of(action)}` | {action.help or ''} |" for action in actions if action.help]
    if rows and not nested:
        yield "\n".join(["| argument | meaning |", "|---|---|", *rows]) + "\n"


def value_of(action: argparse.Action) -> str:
    """Return the placeholder for the value of an option or argument; "" where it takes none."""
    if action.nargs == 0:
        return ""
    if action.choices:
        return "|".join(map(str, action.choices))
    name = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    return f"{name} ..." if action.nargs == "*" else str(name)


def title_of(action: argparse.Action) -> str:
    """Return an option or argument as it is typed."""
    # A bar would end the cell of a table, also inside of code.
    return " ".join(filter(None, (", ".join(action.option_strings), value_of(action)))).replace("|", "\\|")


def synopsis_of(action: argparse.Action) -> str:
    """Return an option or argument as a synopsis shows it: in brackets where it may be left out."""
    text = " ".join(filter(None, (*action.option_strings[-1:], value_of(action))))
    if not action.option_strings and action.nargs != "*":
        return text
    return text if action.required and action.option_strings else f"[{text}]"


GENERATORS: dict[str, Callable[[], str]] = {"settings": list_settings, "commands": list_commands}


def fill(text: str) -> str:
    """Return a page with its generated parts made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{GENERATORS[found[2]]()}{found[3]}", text)


def main() -> None:
    """Make every generated part anew."""
    for name in GENERATORS:
        page = REFERENCE_DIR / f"{name}.md"
        page.write_text(fill(page.read_text()))


if __name__ == "__main__":
    main()
