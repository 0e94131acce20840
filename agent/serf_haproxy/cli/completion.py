"""serf-haproxy completion: print a shell's completion script, made from the parser itself."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

SHELLS = ("bash", "fish", "zsh")

_PATHS = ("PATH", "DIR")  # placeholders of values that are paths


class Command(NamedTuple):
    """What can follow a command.

    Attributes:
        words: The command: none for the program itself, else such as `lab up`.
        help: What it does.
        options: Its options.
        commands: Its own commands, each with its help.
    """

    words: tuple[str, ...]
    help: str
    options: tuple[argparse.Action, ...]
    commands: tuple[tuple[str, str], ...]


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `completion`."""
    text = "Print the completion script of a shell: source <(serf-haproxy completion bash)."
    parser = commands.add_parser("completion", help=text, description=text)
    parser.set_defaults(command=print_completion)
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def print_completion(args: argparse.Namespace) -> int:
    """Print the script."""
    sys.stdout.write(make_completion(args.parser, args.shell))
    return 0


def make_completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script of one of SHELLS."""
    makers: dict[str, Callable[[Sequence[Command]], Iterator[str]]] = {
        "bash": _list_bash,
        "fish": _list_fish,
        "zsh": _list_zsh,
    }
    return "\n".join(makers[shell](list(_walk(parser, (), "")))) + "\n"


def _walk(parser: argparse.ArgumentParser, words: tuple[str, ...], text: str) -> Iterator[Command]:
    options = tuple(one for one in parser._actions if one.option_strings and one.help != argparse.SUPPRESS)
    groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    named = tuple((one.dest, one.help or "") for group in groups for one in group._choices_actions)
    yield Command(words, text, options, named)
    for group in groups:
        for name, about in named:
            yield from _walk(group.choices[name], (*words, name), about)


def _list_cases(commands: Sequence[Command], give: str, files: str) -> Iterator[str]:
    """Yield the body of a function of bash or zsh, where `at` says which command is typed so far.

    Args:
        commands: All commands.
        give: How the shell is given words, with {} for them.
        files: How it is told to complete a path.
    """
    for command in commands:
        for option in command.options:
            if option.nargs == 0:
                continue
            names = "|".join(_quote(_join(command.words, name)) for name in option.option_strings)
            values = give.format(" ".join(map(str, option.choices))) if option.choices else ":"
            yield f"        {names}) {files if option.metavar in _PATHS else values}; return ;;"
    yield "    esac"
    yield '    case "$at" in'
    for command in commands:
        words = [name for name, _ in command.commands]
        words += [name for option in command.options for name in option.option_strings]
        yield f"        {_quote(_join(command.words))}) {give.format(' '.join(words))} ;;"
    yield "    esac"


def _list_walk(commands: Sequence[Command], words: str) -> Iterator[str]:
    """Yield the lines that find the command in the shell's words, bash's and zsh's alike."""
    known = "|".join(_quote(_join(command.words)) for command in commands if command.words)
    yield f'    for word in "{words}"; do'
    yield f'        case "$at $word" in {known}) at="$at $word" ;; esac'
    yield "    done"
    yield '    case "$at $prev" in'


def _list_bash(commands: Sequence[Command]) -> Iterator[str]:
    yield "# bash completion of serf-haproxy: source <(serf-haproxy completion bash)"
    yield "_serf_haproxy() {"
    yield '    local at="" word cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"'
    yield from _list_walk(commands, "${COMP_WORDS[@]:1:COMP_CWORD-1}")
    yield from _list_cases(
        commands,
        'mapfile -t COMPREPLY < <(compgen -W "{}" -- "$cur")',
        'mapfile -t COMPREPLY < <(compgen -f -- "$cur")',
    )
    yield "}"
    yield "complete -o filenames -F _serf_haproxy serf-haproxy"


def _list_zsh(commands: Sequence[Command]) -> Iterator[str]:
    yield "#compdef serf-haproxy"
    yield "_serf_haproxy() {"
    yield '    local at="" word prev="${words[CURRENT-1]}"'
    yield from _list_walk(commands, "${(@)words[2,CURRENT-1]}")
    yield from _list_cases(commands, "compadd -- {}", "_files")
    yield "}"
    yield 'if [ "${funcstack[1]}" = _serf-haproxy ]; then _serf_haproxy "$@"'
    yield "else compdef _serf_haproxy serf-haproxy; fi"


def _list_fish(commands: Sequence[Command]) -> Iterator[str]:
    yield "# fish completion of serf-haproxy: serf-haproxy completion fish | source"
    yield "complete -c serf-haproxy -f"
    for command in commands:
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
        others = " ".join(name for name, _ in command.commands)
        for name, text in command.commands:
            fresh = f"not __fish_seen_subcommand_from {others}"
            where = shlex.quote(f"{seen}; and {fresh}" if seen else fresh)
            yield f"complete -c serf-haproxy -n {where} -a {name} -d {shlex.quote(text)}"
        for option in command.options:
            yield " ".join(["complete -c serf-haproxy", *([f"-n {shlex.quote(seen)}"] if seen else ()), *_fish(option)])


def _fish(option: argparse.Action) -> Iterator[str]:
    yield from (f"-{'l' if name.startswith('--') else 's'} {name.lstrip('-')}" for name in option.option_strings)
    if option.choices:
        yield f"-x -a {shlex.quote(' '.join(map(str, option.choices)))}"
    elif option.nargs != 0:
        yield "-r -F" if option.metavar in _PATHS else "-x"
    if option.help:
        yield f"-d {shlex.quote(option.help)}"


def _join(words: Sequence[str], *more: str) -> str:
    """Return words as the variable `at` has them: each after a space."""
    return "".join(f" {word}" for word in (*words, *more))


def _quote(text: str) -> str:
    return f'"{text}"'
