"""The commands of the lab by which the autoscaler starts and stops nodes. Cheap to import."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serf_haproxy.lab.cluster import Lab


def add_commands(add: Callable[..., Any]) -> None:
    """Add the commands; `add` adds one by its name, function and arguments."""
    add("slots", _slots)
    fill = add("fill", _fill, "name")
    fill.add_argument("--service", metavar="NAME", help="its service (default: the default service)")
    add("empty", _empty, "name")


def _slots(lab: "Lab", args: argparse.Namespace) -> str:
    """Print the nodes that run, one on each line, for the autoscaler."""
    from serf_haproxy.lab.slots import list_filled

    names = list_filled(lab)
    return json.dumps(names) if args.json else "\n".join(names)


def _fill(lab: "Lab", args: argparse.Namespace) -> str:
    """Start a node for the autoscaler, unless it runs; do not wait until it is served."""
    from serf_haproxy.lab.slots import fill

    fill(lab, args.name, args.service)
    return f"{args.name} runs"


def _empty(lab: "Lab", args: argparse.Namespace) -> str:
    """Let a node leave for the autoscaler, and end, unless it has."""
    from serf_haproxy.lab.slots import empty

    empty(lab, args.name)
    return f"{args.name} has left"
