"""The command line of the lab: `serf-haproxy lab ...`. Cheap to import."""

import argparse
import json
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from serf_haproxy.lab import command_slots as slots
from serf_haproxy.lab import command_traffic as traffic

if TYPE_CHECKING:
    from serf_haproxy.lab.cluster import Lab


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `lab` with all its own commands."""
    parser = subparsers.add_parser("lab", help="Run a whole cluster of real processes on loopback.")
    parser.set_defaults(command=main)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    common = _common_options()

    def add(verb: str, function: Any, *words: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = verbs.add_parser(verb, help=function.__doc__, parents=[common])
        command.set_defaults(verb=function)
        for word in words:
            command.add_argument(word, metavar=word.upper())
        return command

    _add_up(add("up", _up))
    new = _add_node_options(add("add", _add, "name"))
    new.add_argument("--service", metavar="NAME", help="a service of lab up --services (default: the default service)")
    _add_waiting(new, 60)
    leave = add("leave", _leave, "name")
    leave.add_argument(
        "--timeout",
        type=float,
        default=30,
        metavar="SECONDS",
        help="longest time to wait (default: 30)",
    )
    add("crash", _crash, "name")
    _add_waiting(_add_node_options(add("return", _return, "name")), 120)
    tags = add("tags", _tags, "name")
    tags.add_argument("tags", metavar="KEY=VALUE", nargs="*")
    tags.add_argument("--delete", metavar="KEY", action="append", default=[], help="remove a tag; repeatable")
    balancer = add("balancer", _balancer, "name")
    balancer.add_argument("to", choices=["up", "down"])
    _add_waiting(balancer, 60)
    add("status", _status)
    add("env", _env).add_argument("--balancer", metavar="NAME", help="a balancer (default: the first one)")
    traffic.add_commands(add)
    add("demo", _demo).add_argument("--once", action="store_true", help="end after the last step; do not stay up")
    slots.add_commands(add)
    add("down", _down).add_argument("--keep", action="store_true", help="keep the logs and other files")


def main(args: argparse.Namespace) -> int:
    """Run one command of the lab.

    Returns:
        0, or 128 plus the number of the signal that interrupted it.

    Raises:
        SerfHaproxyError: The command failed.
    """
    from serf_haproxy.lab.cluster import Lab

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    lab = Lab(args.dir, args.port_base)
    try:
        line = args.verb(lab, args)
        if isinstance(line, int):
            return line
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        print("serf-haproxy: interrupted", file=sys.stderr)
        return 128 + int(number)
    if args.json and line is None:
        print(json.dumps(lab.status(), indent=1))
    else:
        print(_format(lab) if line is None else line)
    return 0


def _up(lab: "Lab", args: argparse.Namespace) -> None:
    """Start a lab; return when all nodes are served through all balancers."""
    from serf_haproxy.lab.services import add_scales, read_wishes

    wishes = [] if args.services is None else read_wishes(args.services)
    nodes = args.nodes if args.nodes is not None else 0 if wishes else 3
    lab.up(nodes, args.balancers, _wait_s(args), add_scales(wishes, args.scale), args.https)


def _add(lab: "Lab", args: argparse.Namespace) -> None:
    """Add a node."""
    from serf_haproxy.lab.services import NodeOptions

    options = NodeOptions(args.service, args.port, _read_tags(args.tag))
    lab.add(args.name, args.address, _wait_s(args), options)


def _leave(lab: "Lab", args: argparse.Namespace) -> None:
    """Let a node leave gracefully."""
    lab.leave(args.name, args.timeout)


def _crash(lab: "Lab", args: argparse.Namespace) -> None:
    """Kill a node with SIGKILL, without a leave."""
    lab.crash(args.name)


def _return(lab: "Lab", args: argparse.Namespace) -> None:
    """Start a node again that left or crashed, at a new address."""
    lab.return_(args.name, args.address, args.port, _read_tags(args.tag), _wait_s(args))


def _tags(lab: "Lab", args: argparse.Namespace) -> None:
    """Change the Serf tags of a live node."""
    lab.tags(args.name, _read_tags(args.tags), args.delete)


def _balancer(lab: "Lab", args: argparse.Namespace) -> None:
    """Start or stop a balancer with all its services."""
    if args.to == "up":
        lab.balancer_up(args.name, _wait_s(args))
    else:
        lab.balancer_down(args.name)


def _status(lab: "Lab", args: argparse.Namespace) -> None:
    """Show all balancers and nodes, and whether they run."""


def _env(lab: "Lab", args: argparse.Namespace) -> str:
    """Print a balancer's settings for a shell: eval "$(serf-haproxy lab env)"."""
    variables = lab.env(args.balancer)
    if args.json:
        return json.dumps(variables, indent=1)
    quoted = {name: value.replace("'", "'\\''") for name, value in sorted(variables.items())}
    return "\n".join(f"export {name}='{value}'" for name, value in quoted.items())


def _demo(lab: "Lab", args: argparse.Namespace) -> int:
    """Show in nine steps how HAProxy follows a cluster: joins, a leave, a crash, services, a canary, a drain."""
    from serf_haproxy.lab.tour import run_tour

    return run_tour(lab, args.once)


def _down(lab: "Lab", args: argparse.Namespace) -> str:
    """Stop the lab and remove its files."""
    was_up = lab.down(args.keep)
    if args.json:
        return json.dumps({"dir": lab.lab_dir, "was_up": was_up})
    return f"the lab at {lab.lab_dir} is down" if was_up else f"there is no lab at {lab.lab_dir}; nothing to do"


def _format(lab: "Lab") -> str:
    from serf_haproxy.lab.report import format_table

    return format_table(lab.status())


def _read_tags(pairs: list[str]) -> dict[str, str]:
    from serf_haproxy.lab.plan import read_tags

    return read_tags(pairs)


def _wait_s(args: argparse.Namespace) -> float:
    return 0.0 if args.no_wait else float(args.timeout)


def _common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    where = "directory of the lab (default: serf-haproxy/lab in $XDG_STATE_HOME or ~/.local/state)"
    common.add_argument("--dir", metavar="DIR", help=where)
    common.add_argument("--port-base", type=int, metavar="PORT", help="first of ten port numbers (default: 18080)")
    common.add_argument("--json", action="store_true", help="print JSON")
    return common


def _add_waiting(command: argparse.ArgumentParser, timeout_s: int) -> None:
    command.add_argument("--no-wait", action="store_true", help="do not wait until the balancers serve it")
    explanation = f"longest time to wait until the balancers serve it (default: {timeout_s})"
    command.add_argument("--timeout", type=float, default=timeout_s, metavar="SECONDS", help=explanation)


def _add_up(up: argparse.ArgumentParser) -> None:
    explanation = "nodes web1 to webN of the default service (default: 3; with --services 0)"
    up.add_argument("--nodes", type=int, metavar="N", help=explanation)
    # The option's name in the previous release; remove it after this one.
    up.add_argument("--backends", type=int, dest="nodes", action=_Deprecated, new="--nodes", help=argparse.SUPPRESS)
    up.add_argument("--balancers", type=int, default=1, metavar="N", help="balancers lb1 to lbN (default: 1)")
    explanation = (
        "further services and their numbers of nodes, such as shop=3,api=2,pg=2; echo, mysql, pg, redis, smtp and"
        " NAME=N:tcp are TCP, the others HTTP"
    )
    up.add_argument("--services", metavar="NAME=N,...", help=explanation)
    explanation = "services of --services that scale with the load, each with its greatest number of servers: shop=5"
    up.add_argument("--scale", metavar="NAME=MAX,...", default="", help=explanation)
    explanation = "also listen for clients with TLS; certificates go to SERF_HAPROXY_CERTIFICATES_DIR (see lab env)"
    up.add_argument("--https", action="store_true", help=explanation)
    _add_waiting(up, 60)


def _add_node_options(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("--address", metavar="A", help="address in 127.0.0.0/8 (default: an unused one)")
    command.add_argument("--port", type=int, metavar="P", help="port of the application")
    command.add_argument("--tag", metavar="KEY=VALUE", action="append", default=[], help="Serf tag; repeatable")
    return command


class _Deprecated(argparse.Action):
    """An option under its former name: it sets the value of the new one and prints a deprecation on stderr."""

    def __init__(self, new: str, **options: Any) -> None:
        super().__init__(**options | {"default": argparse.SUPPRESS})
        self.new = new

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Set the value."""
        print(f"serf-haproxy: {option_string} is deprecated; use {self.new}", file=sys.stderr)
        setattr(namespace, self.dest, values)


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)
