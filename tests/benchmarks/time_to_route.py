"""The time from a node's join to its first request, and from its leave to its last request.

serf-haproxy with and without hints, compared to a Serf agent with a shell handler that renders and reloads.

Usage: .venv/bin/python tests/benchmarks/time_to_route.py [--joins 50] [--profile local] [--results DIR]

All three run at the same time on one machine and see the same joins. Each has a client that makes requests without a
pause, each on a new connection. The applications answer before their Serf agents start. `--joins` joins name all
balancers; as many name only another node, from which gossip has to spread the change. For serf-haproxy with hints the
steps are reported as well: when the balancer's Serf agent logged the change, and when the daemon logged that HAProxy
has it.
"""

import argparse
import contextlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from applications import Application
from contestants import Balancer, Log, Tail, ours, plain
from measure import Report, make_parser, percentile

from integration.agents import run_serf
from integration.proxy import free_port, wait_for

GAP_S = 3.0  # longer than coalescing, a handler and a reload, so that joins do not overlap
BALANCERS = ("ours", "ours, no hints", "shell handler")
DOORS = ("the balancers", "a node")  # the addresses that a join names
LEFT_S = 15.0  # Serf repairs a lost leave after some seconds; a lost reload waits for the next event
# Patterns for the logs of serf-haproxy, with {name} for the node's name.
GOSSIPED = re.escape("serf: EventMemberJoin: {name} ")
LEFT_GOSSIPED = r"serf: messageLeaveType: {name}$"
LEFT = re.escape("serf: EventMemberLeave: {name} ")
ROUTED = r"(APPLIED|RELOADED) servers changed:.* \+{name}\b"
RAISED = r"Server nodes/{name} is UP, reason: "  # not "is UP/DRAIN", which comes before
UNROUTED = r"(APPLIED|RELOADED) servers changed:.* [-~]{name}\b"


class Guest(NamedTuple):
    """A node that joins: its name, the addresses that its join names (of DOORS), the options of its Serf agent."""

    name: str
    door: str
    options: list[str]


Marks = dict[str, tuple[Log | Tail, str] | None]


class Times:
    """The results, seconds: each join and leave by balancer, and the steps of those with hints."""

    def __init__(self, gap_s: float) -> None:
        self.gap_s = gap_s
        self.joins_s: dict[str, dict[str, list[float]]] = {door: {name: [] for name in BALANCERS} for door in DOORS}
        self.leaves_s: dict[str, list[float]] = {name: [] for name in BALANCERS}
        self.join_way_s: dict[str, list[dict[str, float | None]]] = {door: [] for door in DOORS}
        self.leave_way_s: list[dict[str, float | None]] = []


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("time-to-route" if options.profile == "lan" else f"time-to-route-{options.profile}", options)
    profile = f"-profile={options.profile}"
    times = Times(options.gap_s)
    with contextlib.ExitStack() as stack:
        directories = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp"))) for _ in BALANCERS
        ]
        # One application always runs, so that a leave causes no 503. Both end after the clients.
        applications = [
            Application(directories[0], f"web{n}", f"127.0.1.{n}", free_port(f"127.0.1.{n}")) for n in (1, 2)
        ]
        for application in applications:
            stack.callback(application.end)
        kept, moving = applications
        running = [
            stack.enter_context(ours(directories[0], 1, "on", profile)),
            stack.enter_context(ours(directories[1], 2, "off", profile)),
            stack.enter_context(plain(directories[2], profile)),
        ]
        balancers = dict(zip(BALANCERS, running, strict=True))
        joins = [f"-join={each.bind}" for each in running]
        tags = ("role=web", f"port={kept.port}")
        options_of_serf = (profile, *joins, "-event-handler=true")
        bind = stack.enter_context(
            run_serf("kept", kept.address, free_port(kept.address), *tags, options=options_of_serf)
        )
        doors = dict(zip(DOORS, (joins, [f"-join={bind}"]), strict=True))
        time.sleep(options.gap_s)
        for number in range(options.joins):
            for door, joined in doors.items():
                name = f"web{number}-through-{door.rpartition(' ')[2]}"
                come_and_go(balancers, Guest(name, door, [profile, *joined]), moving, times)
    tell(report, times)
    report.write()


def come_and_go(balancers: dict[str, Balancer], guest: Guest, application: Application, times: Times) -> None:
    """Let one node join, and leave again when all balancers have it."""
    address, port = application.address, application.port
    name, door = guest.name, guest.door
    clients = {each: balancer.client for each, balancer in balancers.items()}
    mine = balancers["ours"]
    for each in [each for each, client in clients.items() if client.has_met(address, times.gap_s)]:
        print(f"{each} still has the node before {name}: its join is not measured there")
        del clients[each]
    for client in clients.values():
        client.first_s.pop(address, None)
    argv = ["serf", "agent", f"-node={name}", f"-bind={address}:{free_port(address)}"]
    argv += [f"-rpc-addr={address}:{free_port(address)}", "-tag", "role=web", "-tag", f"port={port}", *guest.options]
    started_s = time.monotonic()
    agent = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: all(address in client.first_s for client in clients.values()), f"the join of {name}")
        for each, client in clients.items():
            times.joins_s[door][each].append(client.first_s[address] - started_s)
        pause(times.gap_s)
        marks: Marks = {
            "Serf logs the join": (mine.serf_log, GOSSIPED),
            "HAProxy's first good check": (mine.haproxy_log, RAISED),
            "first request": None,
            "the daemon logs it": (mine.daemon_log, ROUTED),
        }
        if "ours" in clients:
            times.join_way_s[door].append(way(started_s, marks, name, times.joins_s[door]["ours"][-1]))
        left_s = time.monotonic()
        agent.send_signal(signal.SIGINT)
        agent.wait(20)
    finally:
        agent.kill()
        agent.wait(10)
    pause(times.gap_s)
    while time.monotonic() < left_s + LEFT_S and any(each.has_met(address, times.gap_s) for each in clients.values()):
        time.sleep(0.02)
    for each, client in clients.items():
        times.leaves_s[each].append(max(0.0, client.last_s[address] - left_s))
    marks = {
        "Serf logs the intent": (mine.serf_log, LEFT_GOSSIPED),
        "Serf logs the leave": (mine.serf_log, LEFT),
        "last request": None,
        "the daemon logs it": (mine.daemon_log, UNROUTED),
    }
    if "ours" in clients:
        times.leave_way_s.append(way(left_s, marks, name, times.leaves_s["ours"][-1]))


def pause(gap_s: float) -> None:
    """Wait for a random time, so that the next step is not in phase with a timer of Serf."""
    time.sleep(gap_s * random.uniform(1.0, 1.25))


def way(since_s: float, marks: Marks, name: str, request_s: float) -> dict[str, float | None]:
    """Return how long after `since_s` each log had its line about a node; a mark without a log gets `request_s`."""
    way_s: dict[str, float | None] = {}
    for mark, place in marks.items():
        at_s = place[0].find_s(place[1], name, since_s) if place else since_s + request_s
        way_s[mark] = None if at_s is None else at_s - since_s
    return way_s


def tell(report: Report, times: Times) -> None:
    """Report the tables and the goals."""
    through = [f"join through {door}" for door in DOORS]
    tables = {**dict(zip(through, times.joins_s.values(), strict=True)), "leave": times.leaves_s}
    rows = [
        (name, what, "last request" if what == "leave" else "first request", *shares(values))
        for what, table in tables.items()
        for name, values in table.items()
    ]
    report.add_table("times", ("balancer", "from a", "until", "p50, ms", "p95, ms", "max, ms"), rows)
    ways_s = {**dict(zip(through, times.join_way_s.values(), strict=True)), "leave": times.leave_way_s}
    rows = []
    for what, each_way_s in ways_s.items():
        for mark in each_way_s[0]:
            at_s = [value_s for way_s in each_way_s if (value_s := way_s[mark]) is not None]
            rows.append((what, mark, len(at_s), *shares(at_s)))
    report.add_table("way", ("from a", "until", "count", "p50, ms", "p95, ms", "max, ms"), rows)
    for what, each_way_s in ways_s.items():
        tell_slowest(what, each_way_s, "last request" if what == "leave" else "first request")
    judge(report, times)
    report.add_data(
        joins_s=times.joins_s, leaves_s=times.leaves_s, join_way_s=times.join_way_s, leave_way_s=times.leave_way_s
    )


def shares(values_s: list[float]) -> tuple[str, ...]:
    """Return median, 95th percentile and maximum, milliseconds; dashes when there are no values."""
    if not values_s:
        return ("-",) * 3
    return tuple(f"{1000 * percentile(values_s, percent):.0f}" for percent in (50, 95, 100))


def tell_slowest(what: str, ways_s: list[dict[str, float | None]], last: str) -> None:
    """Print the steps of the three slowest."""
    for way_s in sorted(ways_s, key=lambda way_s: way_s[last] or 0.0)[-3:]:
        shown = (
            f"{mark} {1000 * at_s:.0f} ms" if at_s is not None else f"{mark} never" for mark, at_s in way_s.items()
        )
        print(f"a slow {what}: {', '.join(shown)}")


def judge(report: Report, times: Times) -> None:
    """Compare the results with the goals, joins by door."""
    for goal, percent, most_s in (
        ("median of a join at most 100 ms", 50, 0.1),
        ("95th percentile of a join at most 250 ms", 95, 0.25),
    ):
        values_s = [percentile(joins_s["ours"], percent) for joins_s in times.joins_s.values()]
        report.add_goal(goal, by_door(f"{1000 * value_s:.0f} ms" for value_s in values_s), max(values_s) <= most_s)
    leave_s = percentile(times.leaves_s["ours"], 95)
    report.add_goal("95th percentile of a leave at most 150 ms", f"{1000 * leave_s:.0f} ms", leave_s <= 0.15)
    ratios = [
        percentile(joins_s["shell handler"], 50) / percentile(joins_s["ours"], 50) for joins_s in times.joins_s.values()
    ]
    found = by_door(f"{ratio:.1f}" for ratio in ratios)
    report.add_goal("median of a join 15 times faster than a shell handler", found, min(ratios) >= 15)


def by_door(values: Iterable[str]) -> str:
    """Return a text with the values of all doors."""
    return ", ".join(f"{value} through {door}" for value, door in zip(values, DOORS, strict=True))


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--joins", type=int, default=50, help="number of joins through each door (default: 50)")
    parser.add_argument("--gap-s", type=float, default=GAP_S, help="pause after each join and each leave")
    parser.add_argument("--profile", choices=["lan", "wan", "local"], default="lan", help="of every Serf agent")
    main(parser.parse_args())
