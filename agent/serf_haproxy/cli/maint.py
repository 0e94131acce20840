"""serf-haproxy maint: orders about nodes, for maintenance."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from serf_haproxy.errors import EXIT_SYSTEM, InputError
from serf_haproxy.settings import Settings, load_settings

if TYPE_CHECKING:
    from serf_haproxy.control.give import Wish
    from serf_haproxy.policy.decision import Decision
    from serf_haproxy.policy.orders import Order
    from serf_haproxy.policy.snapshot import Running

_WAIT_S = 300.0
_TELL_S = 1.0  # a daemon obeys within less


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `maint`."""
    text = "Take nodes out of service and back, on all balancers, until the order is undone or ends."
    group = commands.add_parser("maint", help=text, description=text).add_subparsers(required=True, metavar="COMMAND")
    text = "Drain a node, or take it out of service."
    parser = group.add_parser("set", help=text, description=text)
    parser.set_defaults(command=set_order)
    _add_subject(parser)
    modes = parser.add_mutually_exclusive_group()
    drain = "keep the clients that the node has, and send it no others; this is the default"
    modes.add_argument("--drain", action="store_const", const="drain", dest="mode", default="drain", help=drain)
    stop = "take it out at once, also while no other server is up; requests in flight are finished"
    modes.add_argument("--stop", action="store_const", const="stop", dest="mode", help=stop)
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why; status, explain and the history show it")
    add_end(parser)
    add_author(parser)
    wait = f"wait until HAProxy has no connection to the node, {_WAIT_S:g} s at most, then exit with 111"
    parser.add_argument("--wait", action="store_true", help=wait)
    text = "Undo the orders about a node."
    parser = group.add_parser("unset", help=text, description=text)
    parser.set_defaults(command=unset_order)
    _add_subject(parser)
    add_author(parser)
    text = "List the orders: those about nodes, and a pause."
    parser = group.add_parser("list", help=text, description=text)
    parser.set_defaults(command=list_orders)
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_end(parser: argparse.ArgumentParser) -> None:
    """Add the option that ends an order."""
    until = "when the order ends by itself: 90s, 30m, 2h, 1d, or a time in UTC such as 18:30Z or 2026-11-26T18:30Z"
    parser.add_argument("--until", metavar="TIME", default="", help=until)


def add_author(parser: argparse.ArgumentParser) -> None:
    """Add the options of every order."""
    parser.add_argument("--local", action="store_true", help="on this balancer alone")
    parser.add_argument("--by", metavar="NAME", default="", help="who gives the order; the user without it")


def read_wish(args: argparse.Namespace) -> "Wish":
    """Return what the options of an order say.

    Raises:
        InputError: The time is wrong, or has passed.
    """
    from serf_haproxy.control.give import Wish, read_end

    text = getattr(args, "until", "")
    return Wish(read_end(text) if text else 0.0, args.by, getattr(args, "reason", ""), args.local)


def set_order(args: argparse.Namespace) -> int:
    """Give an order about a node."""
    from serf_haproxy.control.give import Desk
    from serf_haproxy.control.preview import preview
    from serf_haproxy.policy.orders import MAINT, explain
    from serf_haproxy.serf.printing import printable

    if not args.reason.strip():
        raise InputError("no order: --reason is empty; say why, which status, explain and the history show to others")
    settings = load_settings(os.environ)
    desk = Desk(settings)
    order = desk.make(MAINT, args.mode, read_wish(args), args.service, args.node)
    when = desk.give([order])
    decision = None if desk.find_silence() else preview(settings).decision  # each look at a frozen HAProxy takes long
    is_last = decision and not when and _is_last(decision, order)
    goes_on = "; it goes on meanwhile, since no other server is up" if is_last else ""
    print(f"{args.node}: {printable(explain(order))}{when}{goes_on}", flush=True)
    if doubt := desk.find_doubt(args.node, args.service) or (decision and _explain_ignored(decision, args.node)):
        print(f"serf-haproxy: {printable(doubt)}", file=sys.stderr)
    return _wait(settings, args.node, args.service) if args.wait else 0


def _is_last(decision: "Decision", order: "Order") -> bool:
    """Return whether a server that an order drains gets requests all the same."""
    from serf_haproxy.policy.decision import State

    last = decision.find(State.LAST)
    return any(name == order.node and order.service in ("", service) for service, name in last)


def _explain_ignored(decision: "Decision", node: str) -> str:
    """Return why an order about a node does nothing now, since the node is ignored in all services; "" where not."""
    from serf_haproxy.policy.decision import State

    found = [entry for (_, name), entry in decision.entries.items() if name == node]
    is_ignored = bool(found) and all(entry.state is State.IGNORED for entry in found)
    return f"{node} is ignored: {found[0].reason}; the order counts when it serves" if is_ignored else ""


def unset_order(args: argparse.Namespace) -> int:
    """Undo the orders about a node."""
    from serf_haproxy.control.give import Desk

    desk = Desk(load_settings(os.environ))
    orders = desk.undo(args.node, args.service, read_wish(args))
    when = desk.give(orders)
    services = ", ".join(order.service or "all services" for order in orders)
    print(f"{args.node}: the orders about it are undone ({services}){when}")
    return 0


def list_orders(args: argparse.Namespace) -> int:
    """List the orders that have effect."""
    import json

    from serf_haproxy.control.give import Desk
    from serf_haproxy.policy.orders import explain, list_active, name_subject
    from serf_haproxy.serf.printing import printable
    from serf_haproxy.system.moments import time_ms

    orders = list_active(Desk(load_settings(os.environ)).read(), time_ms()).list_lasting()
    if args.json:
        print(json.dumps({"version": 1, "orders": [order._asdict() for order in orders]}, indent=1))
        return 0
    if not orders:
        print("there is no order", file=sys.stderr)
    for order in orders:
        print(f"{name_subject(order) or 'all'}: {printable(explain(order))}")
    return 0


def _add_subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE", help="the node's name")
    parser.add_argument("--service", metavar="NAME", default="", help="in this service alone")


def _wait(settings: Settings, node: str, service: str) -> int:
    """Wait until HAProxy has no connection to a node's servers; say what keeps it."""
    import time

    from serf_haproxy.control.edges import make_edges
    from serf_haproxy.haproxy.socket import PROMPT

    runtime, began_s, pause_s, told = make_edges(settings, PROMPT).runtime, time.monotonic(), 0.1, ""
    while (waited_s := time.monotonic() - began_s) < _WAIT_S:
        obstacle, result = _look(runtime.read_running(), node, service)
        if not obstacle:
            print(f"{node}: {result}")
            return 0
        if waited_s > _TELL_S and obstacle != told:
            print(f"serf-haproxy: waiting for {node}: {obstacle}", file=sys.stderr)
            told = obstacle
        time.sleep(pause_s)
        pause_s = min(2.0, 1.5 * pause_s)
    print(f"serf-haproxy: {node}: {obstacle}, after {_WAIT_S:g} s; the order stays", file=sys.stderr)
    return EXIT_SYSTEM


def _look(running: "Running | None", node: str, service: str) -> tuple[str, str]:
    """Return what keeps a node from being free of connections, or "" and what there is to say."""
    if running is None or running.servers is None:
        return "HAProxy does not answer", ""
    servers = running.servers.items()
    ours = [one for (section, name), one in servers if name == node and service in ("", section)]
    if any(one.weight != 0 and not one.is_maintained for one in ours):
        why = "`serf-haproxy status` says why: no other server is up, there is a pause, or the daemon does not run"
        return f"HAProxy still gives it clients; {why}", ""
    if any(one.connection_count for one in ours):
        return "HAProxy has connections to it", ""
    return "", "HAProxy has no connection to it" if ours else "HAProxy has no server of it"
