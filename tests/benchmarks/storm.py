"""A storm: many members join within a second and leave again. Reloads, passes, CPU time of the resident and of HAProxy.

Usage: .venv/bin/python tests/benchmarks/storm.py [--members 500] [--results DIR]

The members are told as Serf would: a hint for each, spread over the second, and one event of all of them through the
real handler a second later. One real HTTP server answers under every member's address. Three balancers, one after the
other: one that takes runtime changes, one whose algorithm takes none, and one with a cookie, which HAProxy 2.6 takes
for servers in its file alone.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends import one_for_all
from measure import Report, child_cpu_s, make_parser
from membership import Membership, Node, serving
from resident import PassCounter, Resident, running_resident

from integration.proxy import free_port, running_proxy, wait_for

EVENT_S = 1.0
BALANCERS = {
    "at run time": {},
    "static-rr, by reload": {"SERF_HAPROXY_BALANCE": "static-rr"},
    "with a cookie": {"SERF_HAPROXY_COOKIE": "SRV"},
}


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    report = Report("storm", options)
    rows = []
    for name, environment in BALANCERS.items():
        with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
            rows += run_storm(Path(directory), name, environment, options)
    shares = (
        "took, s",
        "reloads",
        "passes",
        "resident, CPU s",
        "haproxy -c, CPU s",
        "HAProxy, CPU s",
        "handlers, CPU s",
    )
    report.add_table("storm", ("balancer", "members", *shares), rows)
    reloads = {name: max(int(row[3]) for row in rows if row[0] == name) for name in BALANCERS}
    at_run_time, *others = reloads.values()
    report.add_goal("no reload where HAProxy takes runtime changes", f"{at_run_time}", at_run_time == 0)
    report.add_goal("else at most 3 for each direction", ", ".join(map(str, others)), max(others) <= 3)
    report.add_data(rows=rows)
    report.write()


def run_storm(directory: Path, name: str, environment: dict[str, str], options: argparse.Namespace) -> list[list[str]]:
    """Let the members come and go at one balancer; return a row for each."""
    port = free_port("0.0.0.0")
    nodes = [
        Node(f"web{number}", f"127.1.{number // 250}.{1 + number % 250}", {"role": "web", "port": str(port)})
        for number in range(options.members)
    ]
    kept = Node("kept", "127.2.0.1", {"role": "web", "port": str(port)})
    with one_for_all(directory, port), running_proxy(directory, **environment) as proxy:
        membership = Membership(proxy.environment)
        membership.put([kept])
        with serving(membership, proxy.settings.rpc_addr), running_resident(proxy) as resident:
            wait_for(lambda: set(resident.up()) == {"kept"}, "the first server")
            storms = (
                Storm("member-join", nodes, {"kept"} | {node.name for node in nodes}),
                Storm("member-leave", nodes, {"kept"}),
            )
            joined, left = (measure(resident, membership, storm, options.settle_s) for storm in storms)
    return [[name, f"{options.members} join", *joined], [name, f"{options.members} leave", *left]]


class Storm(NamedTuple):
    """One direction of a storm.

    Attributes:
        kind: Serf's name of the event.
        nodes: The members that it is about.
        names: The servers that HAProxy has afterwards.
    """

    kind: str
    nodes: list[Node]
    names: set[str]


def measure(resident: Resident, membership: Membership, storm: Storm, settle_s: float) -> list[str]:
    """Tell of members within a second and wait until HAProxy has just what it should; return what it cost."""
    before_s, reloads = costs_s(resident), resident.proxy.reload_count()
    started_s = time.monotonic()
    with PassCounter(resident.proxy) as passes:
        for number, node in enumerate(storm.nodes):
            time.sleep(max(0.0, started_s + number / len(storm.nodes) - time.monotonic()))
            membership.put([node], storm.kind)
            membership.hint(storm.kind, [node])
        # Serf's agent collects events until a second was quiet, and runs the handler once.
        time.sleep(EVENT_S)
        handler_s = child_cpu_s(lambda: membership.event(storm.kind, storm.nodes))
        wait_for(lambda: is_done(resident, storm.names), "HAProxy has all changes", 120)
        took_s = time.monotonic() - started_s
        used_s = [after_s - earlier_s for after_s, earlier_s in zip(costs_s(resident), before_s, strict=True)]
        time.sleep(settle_s)  # the roster is asked once more, servers are deleted
    reload_count = resident.proxy.reload_count() - reloads
    return [
        f"{took_s:.1f}",
        str(reload_count),
        str(passes.count),
        *(f"{each_s:.2f}" for each_s in (*used_s, handler_s)),
    ]


def is_done(resident: Resident, names: set[str]) -> bool:
    """Tell whether HAProxy has just those servers, and uses them."""
    return resident.proxy.servers() == names and set(resident.up()) == names


def costs_s(resident: Resident) -> tuple[float, float, float]:
    """Return the CPU time so far of the resident, of its checks and of HAProxy."""
    return resident.cpu_s(), resident.check_cpu_s(), resident.haproxy_cpu_s()


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--members", type=int, default=500)
    parser.add_argument("--settle-s", type=float, default=4.0)
    main(parser.parse_args())
