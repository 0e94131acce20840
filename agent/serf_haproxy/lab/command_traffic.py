"""The commands of the lab about requests: slow, break and heal a node, make requests, do a task. Cheap to import."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serf_haproxy.lab.cluster import Lab

Add = Callable[..., argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    """Add these commands to those of the lab.

    Args:
        add: Takes the name of a command, its function and the names of its arguments; returns its parser.
    """
    slow = add("slow", _slow, "name")
    slow.add_argument("--times", type=float, metavar="N", help="the node's work takes N times as long (default: 10)")
    slow.add_argument("--delay", type=int, metavar="MS", help="instead: every answer comes so much later")
    slow.add_argument("--no-checks", action="store_true", help="the delay is not for answers to health checks")
    explanation = "every request gets this status at once, health checks stay good (default: 500)"
    add("break", _break, "name").add_argument("--status", type=int, default=500, metavar="S", help=explanation)
    add("heal", _heal, "name")
    load = add("load", _load)
    load.add_argument("--rate", type=float, required=True, metavar="R", help="requests a second, of 200 clients")
    load.add_argument("--duration", type=float, default=30, metavar="S", help="seconds (default: 30)")
    load.add_argument("--work", type=float, default=20, metavar="MS", help="mean work of a request (default: 20)")
    load.add_argument("--bimodal", action="store_true", help="one request of ten is long, the others are short")
    load.add_argument("--cookies", action="store_true", help="clients keep their cookies")
    load.add_argument("--service", metavar="NAME", help="a service of mode http (default: the default service)")
    load.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed gives the same requests")
    task = add("task", _task)
    task.add_argument("number", type=int, choices=range(1, 6), help="the task of the lab about load balancing")


def _slow(lab: "Lab", args: argparse.Namespace) -> str:
    """Make a node slow, ten times by default, until it is healed."""
    from serf_haproxy.errors import InputError

    if args.times is not None and args.delay is not None:
        raise InputError("lab slow: give --times or --delay, not both")
    times = 10.0 if args.times is None and args.delay is None else args.times
    lab.slow(args.name, times, args.delay, not args.no_checks)
    said = f"takes {times:g} times as long" if times is not None else f"answers {args.delay} ms later"
    return _say(args, f"{args.name} {said}; heal it with: serf-haproxy lab heal {args.name}")


def _break(lab: "Lab", args: argparse.Namespace) -> str:
    """Have a node answer each request with an error at once."""
    lab.break_(args.name, args.status)
    return _say(args, f"{args.name} answers {args.status} at once; heal it with: serf-haproxy lab heal {args.name}")


def _heal(lab: "Lab", args: argparse.Namespace) -> str:
    """Make a slow or broken node ordinary again."""
    lab.heal(args.name)
    return _say(args, f"{args.name} is as fast as before")


def _load(lab: "Lab", args: argparse.Namespace) -> str:
    """Make requests at a constant mean rate; show each second how long they take, and the share of each server."""
    from serf_haproxy.lab.traffic import Traffic, make_traffic

    kind = "bimodal" if args.bimodal else "exponential"
    wanted = Traffic(args.rate, args.duration, kind, args.work / 1000, args.cookies, args.seed, args.service)
    found = make_traffic(lab, wanted, is_quiet=args.json)
    return json.dumps(found.to_json(), indent=1) if args.json else found.format()


def _task(lab: "Lab", args: argparse.Namespace) -> int:
    """Do a task of the lab about load balancing in a new lab, and print what a student hands in."""
    from serf_haproxy.lab.tasks import run_task

    return run_task(lab, args.number, args.json)


def _say(args: argparse.Namespace, text: str) -> str:
    return json.dumps({"name": args.name, "said": text}) if args.json else text
