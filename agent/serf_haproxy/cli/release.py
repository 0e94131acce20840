"""serf-haproxy release: end the hold of lost servers."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from serf_haproxy.cli.maint import add_author, read_wish
from serf_haproxy.settings import load_settings

if TYPE_CHECKING:
    from serf_haproxy.control.preview import Preview
    from serf_haproxy.services import Key


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `release`."""
    text = "Remove the servers that are held because too many were lost at once, or kept because no other is up."
    parser = commands.add_parser("release", help=text, description=text)
    parser.set_defaults(command=release)
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="only the servers of these nodes")
    add_author(parser)


def _is_drained(found: "Preview", key: "Key") -> bool:
    """Return whether a server only drains: its tag says so, and no order ends that."""
    file = found.snapshot.files.get(key[1])
    return file is not None and file.status == "alive" and key not in found.decision.unfit


def release(args: argparse.Namespace) -> int:
    """Order the next pass to end every hold, or those of some nodes, and wake the daemon."""
    from serf_haproxy.control.give import Desk, suggest
    from serf_haproxy.control.preview import preview
    from serf_haproxy.errors import InputError
    from serf_haproxy.haproxy.socket import BRIEF, PROMPT
    from serf_haproxy.policy.decision import State
    from serf_haproxy.policy.orders import ON, RELEASE
    from serf_haproxy.services import format_key

    settings = load_settings(os.environ)
    desk, wish = Desk(settings), read_wish(args)
    found = preview(settings, limits=BRIEF if desk.find_silence() else PROMPT)
    names = {name for _, name in found.decision.entries}
    if unknown := sorted(set(args.nodes) - names):
        raise InputError(f"release: no node {unknown[0]!a} is known{suggest(unknown[0], names)}")
    kept = found.decision.find(State.HELD) | {
        key: entry for key, entry in found.decision.find(State.LAST).items() if not _is_drained(found, key)
    }
    held = sorted(format_key(key) for key in kept if not args.nodes or key[1] in args.nodes)
    when = desk.give([desk.make(RELEASE, ON, wish, node=node) for node in args.nodes or ("",)])
    print(f"{_describe(held, args.nodes)}{when if held or not when else f'; the order counts{when[1:]}'}")
    return 0


def _describe(held: list[str], nodes: list[str]) -> str:
    if not held:
        which = f"no server of {' or '.join(nodes)}" if nodes else "no server"
        return f"nothing to release: {which} is held here, or kept because no other is up"
    return f"{len(held)} {'server is' if len(held) == 1 else 'servers are'} released: {' '.join(held)}"
