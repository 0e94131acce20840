"""serf-haproxy explain: why a node is as it is."""

import argparse
import json
import os
from typing import Any

from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `explain`."""
    text = (
        "Explain a node: what Serf says, the decision and its rule, HAProxy's view, last events, what would change it."
    )
    parser = commands.add_parser("explain", help=text, description=text)
    parser.set_defaults(command=explain)
    parser.add_argument("node", metavar="NODE", help="the node's name")
    parser.add_argument("--service", metavar="NAME", default="", help="only this service")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="text, or JSON for programs")


def explain(args: argparse.Namespace) -> int:
    """Explain a node."""
    from serf_haproxy.control.answers import ask_roster
    from serf_haproxy.control.give import suggest
    from serf_haproxy.control.report import read_report
    from serf_haproxy.errors import InputError
    from serf_haproxy.show.document import VERSION
    from serf_haproxy.show.explain import explain_node, format_explanation
    from serf_haproxy.show.scaling import find_slot, format_slot

    settings = load_settings(os.environ)
    report = read_report(settings)
    found = explain_node(report, args.node, args.service, ask_roster(settings))
    if not found:
        known = {name for _, name in report.decision.entries} | report.record.refused.keys()
        slot = find_slot(report.scaled, args.service, args.node)
        if args.node in known and not slot:
            there = " ".join(service for service, name in report.decision.entries if name == args.node)
            raise InputError(f"node {args.node!a} is not in a service {args.service!a}; it is in {there}")
        hint = suggest(args.node, known) or "; `serf-haproxy status` lists all"
        hint = f"; it is a slot of service {slot['service']}: {format_slot(slot)}" if slot else hint
        raise InputError(f"node {args.node!a}: no such node is known{hint}")
    if args.output == "json":
        print(json.dumps({"version": VERSION, "explanations": found}, indent=1))
    else:
        print("\n\n".join(format_explanation(one, report.at_s) for one in found))
    return 0
