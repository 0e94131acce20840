"""serf-haproxy plan: what the next pass would change."""

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from serf_haproxy.errors import EXIT_INPUT, InputError
from serf_haproxy.settings import SETTINGS_FILE, load_settings

if TYPE_CHECKING:
    from serf_haproxy.control.plan import Plan


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `plan`."""
    text = "Show what the next pass would change, and change nothing; exit with 0 for nothing, 1 for something."
    parser = commands.add_parser("plan", help=text, description=text)
    parser.set_defaults(command=plan)
    parser.add_argument("--template", metavar="PATH", help="as if this were the template")
    parser.add_argument("--services", metavar="PATH", help="as if this were the services file")
    parser.add_argument("--settings", metavar="PATH", help="as if this were the settings file; the environment wins")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="text, or JSON for programs")


def plan(args: argparse.Namespace) -> int:
    """Show what the next pass would change; return 0 for nothing, 1 for something, 100 where HAProxy refuses it."""
    from serf_haproxy.control.plan import How, make_plan

    environ = os.environ | ({SETTINGS_FILE: os.path.abspath(args.settings)} if args.settings else {})
    files = {"template_path": args.template, "services_file": args.services}
    settings = load_settings(environ)
    for option, path in (("--template", args.template), ("--services", args.services)):
        if path and not os.path.exists(path):  # without a services file there are no services: a typo would be no news
            raise InputError(f"{option} {path}: there is no such file")
    found = make_plan(settings.replace(**{key: os.path.abspath(path) for key, path in files.items() if path}))
    print(_to_json(found) if args.output == "json" else _format(found, settings.config_path))
    return EXIT_INPUT if found.how is How.REFUSED else int(found.how not in (How.NONE, How.PAUSED))


def _to_json(found: "Plan") -> str:
    from serf_haproxy.serf.printing import printable

    servers = [dict(zip(("sign", "server", "text"), one, strict=True)) for one in found.servers]
    document = {
        "version": 1,
        "how": found.how.value,
        "servers": servers,
        "commands": list(found.commands),
        "diff": "\n".join(_diff(found, "haproxy.cfg")),
        "words": printable(found.words),
        "faults": list(map(printable, found.faults)),
        "pause": printable(found.pause),
        "changes_in_s": found.changes_in_s,
        "serf_fault": printable(found.serf_fault),
    }
    return json.dumps(document, indent=1)


def _format(found: "Plan", path: str) -> str:
    from serf_haproxy.control.plan import How
    from serf_haproxy.serf.printing import printable
    from serf_haproxy.show.words import format_span

    lines = [f"WARNING services file: {fault}" for fault in found.faults]
    lines += [f"{sign} {name}  {text}" for sign, name, text in found.servers]
    lines += _diff(found, path)
    count = len(found.commands)
    how = {
        How.NONE: "nothing to change: HAProxy runs what it should",
        How.RUNTIME: f"at run time, by {count} commands" if count else "the file alone changes, not HAProxy",
        How.RELOAD: "by a reload",
        How.START: "HAProxy does not run: it is published for its start",
        How.FROZEN: "HAProxy is there and does not answer: changes wait until it does; then the plan says more",
        How.REFUSED: "not at all, since HAProxy refuses it:",
        How.PAUSED: f"nothing until `serf-haproxy resume`: {found.pause}",
    }
    lines += [how[found.how], *found.words.splitlines()]
    if found.changes_in_s is not None:
        span = "a second" if found.changes_in_s < 1 else format_span(found.changes_in_s)
        lines.append(f"this may change by itself within {span}, since a time limit ends or a server is looked at again")
    if found.serf_fault:
        lines.append(f"WARNING Serf: {found.serf_fault}; a change of the cluster that is not heard is not in the plan")
    return "\n".join(printable(line, 16384) for line in lines)


def _diff(found: "Plan", path: str) -> list[str]:
    import difflib

    before, after = found.before.splitlines(), found.after.splitlines()
    return list(difflib.unified_diff(before, after, path, "the next one", lineterm=""))
