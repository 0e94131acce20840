"""Write the generated parts of the reference: the tables of settings and of services, and the list of commands.

Usage: .venv/bin/python docs/generate.py

A generated part stands between `<!-- NAME -->` and `<!-- end -->`. The rest of a page is written by hand.
"""

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from serf_haproxy.cli.main import build_parser
from serf_haproxy.services.scaling import SCALE_KEYS
from serf_haproxy.services.service import INHERITED, KEYS
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


def list_service_keys() -> str:
    """Return the table of all keys of a service, in the order of the class `Service`."""
    lines = ["| Key | TOML | Allowed | Meaning |", "|---|---|---|---|"]
    for key, field in KEYS.items():
        kind, form, doc = (field.metadata[name] for name in ("kind", "form", "doc"))
        meaning = f"{doc}; default: the setting `{variable(key)}`" if key in INHERITED else doc
        lines.append(f"| `{key}` | {form} | {kind.allowed} | {meaning} |")
    return "\n".join(lines) + "\n"


def list_scale_keys() -> str:
    """Return the table of all keys of a service's table `scale`, in the order of the class `Scale`."""
    lines = ["| Key | TOML | Allowed | Meaning |", "|---|---|---|---|"]
    for key, field in SCALE_KEYS.items():
        kind, form, doc = (field.metadata[name] for name in ("kind", "form", "doc"))
        lines.append(f"| `{key}` | {form} | {kind.allowed} | {doc} |")
    return "\n".join(lines) + "\n"


def list_commands() -> str:
    """Return a section for every command, with its options."""
    return "\n".join(describe_commands(build_parser(), frozenset()))


def describe_commands(parser: argparse.ArgumentParser, shared: frozenset[str]) -> Iterator[str]:
    """Yield the text of every command below a parser, depth first.

    Args:
        parser: The parser of a program or of a group of commands.
        shared: Options that the group has described already.
    """
    for group in parser._actions:
        if not isinstance(group, argparse._SubParsersAction):
            continue
        for choice in group._choices_actions:
            command = group.choices[choice.dest]
            yield f"{'#' * len(command.prog.split())} {command.prog}\n\n{choice.help}\n"
            if commands := find_commands(command):
                known = [{action.option_strings[-1] for action in list_options(each)} for each in commands]
                common = shared.union(frozenset.intersection(*map(frozenset, known)))
                rows = [action for action in list_options(commands[0]) if action.option_strings[-1] in common]
                yield f"```\n{command.prog} COMMAND ...\n```\n"
                yield from list_rows("Every one of its commands takes these options:\n\n", rows)
                yield from describe_commands(command, common)
            else:
                actions = [action for action in list_actions(command) if not shared & {*action.option_strings}]
                options = [action for action in actions if action.option_strings]
                arguments = [action for action in actions if not action.option_strings]
                words = [command.prog, *map(synopsis_of, [*arguments, *options])]
                yield f"```\n{' '.join(words)}\n```\n"
                yield from list_rows("", [*arguments, *options])


def find_commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of the commands of a group; none for a command."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [group.choices[choice.dest] for group in groups for choice in group._choices_actions]


def list_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options and arguments of a command, without `--help` and hidden ones."""
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    return [action for action in actions if action.help != argparse.SUPPRESS]


def list_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options of a command."""
    return [action for action in list_actions(parser) if action.option_strings]


def list_rows(title: str, actions: list[argparse.Action]) -> Iterator[str]:
    """Yield a table of those options and arguments that have a help text, if there are any."""
    rows = [f"| `{title_of(action)}` | {action.help} |" for action in actions if action.help]
    if rows:
        yield title + "\n".join(["| argument | meaning |", "|---|---|", *rows]) + "\n"


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


GENERATORS: dict[str, Callable[[], str]] = {
    "settings": list_settings,
    "services": list_service_keys,
    "scale": list_scale_keys,
    "commands": list_commands,
}


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
