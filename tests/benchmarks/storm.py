"""A storm: many members join within a second and leave again; reloads, passes, CPU time of the daemon and of HAProxy.

Usage: .venv/bin/python tests/benchmarks/storm.py [--members 500] [--results DIR]

Changes are reported as by Serf: a hint for each member, spread over the second, and a second later one event for all of
them through the real handler. One real HTTP server listens on all addresses. Three balancers are measured one after
another: with servers that change at run time, with an algorithm for which they cannot, and with a cookie, which HAProxy
2.6 supports only for servers in its configuration file.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from applications import one_for_all
from balancer import Daemon, PassCounter, running_daemon
from measure import Report, child_cpu_s, make_parser
from membership import Member, Membership, serving

from integration.proxy import free_port, running_proxy, wait_for

EVENT_S = 1.0
BALANCERS = {
    "at run time": {},
    "static-rr, by reload": {"SERF_HAPROXY_BALANCE": "static-rr"},
    "with a cookie": {"SERF_HAPROXY_COOKIE": "SRV"},
}


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("storm", options)
    rows = []
    for name, environment in BALANCERS.items():
        with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
            rows += run_storm(Path(directory), name, environment, options)
    shares = (
        "took, s",
        "reloads",
        "passes",
        "daemon, CPU s",
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
    """Let the members join and leave at one balancer; return a row for each direction."""
    port = free_port("0.0.0.0")
    members = [
        Member(f"web{number}", f"127.1.{number // 250}.{1 + number % 250}", {"role": "web", "port": str(port)})
        for number in range(options.members)
    ]
    kept = Member("kept", "127.2.0.1", {"role": "web", "port": str(port)})
    with one_for_all(directory, port), running_proxy(directory, **environment) as proxy:
        membership = Membership(proxy.environment)
        membership.put([kept])
        with serving(membership, proxy.settings.rpc_addr), running_daemon(proxy) as daemon:
            wait_for(lambda: set(daemon.up()) == {"kept"}, "the first server")
            storms = (
                Storm("member-join", members, {"kept"} | {member.name for member in members}),
                Storm("member-leave", members, {"kept"}),
            )
            joined, left = (measure(daemon, membership, storm, options.settle_s) for storm in storms)
    return [[name, f"{options.members} join", *joined], [name, f"{options.members} leave", *left]]


class Storm(NamedTuple):
    """One direction of a storm.

    Attributes:
        kind: Serf's name of the event.
        members: The members that change.
        names: The servers that HAProxy has afterwards.
    """

    kind: str
    members: list[Member]
    names: set[str]


def measure(daemon: Daemon, membership: Membership, storm: Storm, settle_s: float) -> list[str]:
    """Report changes within a second and wait until HAProxy has exactly the right servers; return the costs."""
    before_s, reloads = costs_s(daemon), daemon.proxy.reload_count()
    started_s = time.monotonic()
    with PassCounter(daemon.proxy) as passes:
        for number, member in enumerate(storm.members):
            time.sleep(max(0.0, started_s + number / len(storm.members) - time.monotonic()))
            membership.put([member], storm.kind)
            membership.hint(storm.kind, [member])
        # A Serf agent collects events until there is none for a second, then runs the handler once.
        time.sleep(EVENT_S)
        handler_s = child_cpu_s(lambda: membership.event(storm.kind, storm.members))
        wait_for(lambda: is_done(daemon, storm.names), "HAProxy has all changes", 120)
        took_s = time.monotonic() - started_s
        used_s = [after_s - earlier_s for after_s, earlier_s in zip(costs_s(daemon), before_s, strict=True)]
        time.sleep(settle_s)  # one more query of the roster, and servers are deleted
    reload_count = daemon.proxy.reload_count() - reloads
    return [
        f"{took_s:.1f}",
        str(reload_count),
        str(passes.count),
        *(f"{each_s:.2f}" for each_s in (*used_s, handler_s)),
    ]


def is_done(daemon: Daemon, names: set[str]) -> bool:
    """Return whether HAProxy has exactly these servers, all up."""
    return daemon.proxy.servers() == names and set(daemon.up()) == names


def costs_s(daemon: Daemon) -> tuple[float, float, float]:
    """Return the CPU time so far of the daemon, of its checks and of HAProxy, seconds."""
    return daemon.cpu_s(), daemon.check_cpu_s(), daemon.haproxy_cpu_s()


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--members", type=int, default=500)
    parser.add_argument("--settle-s", type=float, default=4.0)
    main(parser.parse_args())
