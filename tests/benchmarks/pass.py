"""Growth: the cost of one change among 10 to 10,000 nodes with a real HAProxy, by serf-haproxy and by HAProxy.

Usage: .venv/bin/python tests/benchmarks/pass.py [--rounds 10] [--counts 10 100 ...] [--own-template] [--results DIR]
       .venv/bin/python tests/benchmarks/pass.py --services 20 [--rounds 10] [--counts 1000]
       .venv/bin/python tests/benchmarks/pass.py --ahead [--rounds 10] [--counts 10 1000 10000]

In each round one node changes its port, so that all passes are complete: read, render, apply, check, publish, record.
"event": a handler has written the node file. "hint": the roster corrects the node file. "reload": like an event, but
with another algorithm each time, which needs a reload. All query the roster over a real socket. "ours" is the time of a
pass without that of HAProxy: the check, the change at run time or the reload, and the answers about what it runs.
"our CPU" is that of the thread that makes the pass; another process simulates Serf. Health checks are rare here,
because thousands of checks a second would use the processor.

With --own-template the same template is used as a user's template, which a child process renders. With --profile the
functions that take the most time are printed instead. With --services the nodes of one cluster are in so many services,
and passes there are compared, in turn, with those of a cluster that has them in one. With --ahead a node joins in each
round, and what it costs until HAProxy has it ahead of the pass is compared with that pass, by our CPU: the simulated
Serf agent takes longer for its answer the more members there are.
"""

import argparse
import contextlib
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import Report, child_cpu_s, make_parser, median, tree_cpu_s
from membership import Member, Membership, serving

from integration.proxy import Proxy, running_proxy
from serf_haproxy.control import rendering
from serf_haproxy.control.edges import find_serf
from serf_haproxy.control.memory import Memory
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.haproxy import master, runtime, socket
from serf_haproxy.serf.client import Client

TEMPLATE = Path(rendering.BUILT_IN_TEMPLATE).read_text()
PATHS = ("event", "hint", "reload")
LINEAR_COUNT = 5000  # up to this number of nodes our time must not grow faster than they do
SETTLED_S = 1.1  # every pass reads node files that are younger (nodes.py)


class Shares(NamedTuple):
    """The parts of the time of one pass, seconds."""

    ours_s: float
    our_cpu_s: float
    check_s: float
    change_s: float
    answers_s: float
    whole_s: float
    haproxy_cpu_s: float


class Cluster:
    """A balancer, its nodes, and the simulated Serf agent that knows them."""

    def __init__(self, proxy: Proxy, membership: Membership, count: int, service_count: int = 0) -> None:
        self.proxy, self.membership, self._service_count = proxy, membership, service_count
        self.client = Client(find_serf(proxy.settings), has_hints=False)
        self.memory = Memory()
        self._reconciler = Reconciler(proxy.settings, self.memory)
        self._number = 0
        self._balance = proxy.settings.balance
        membership.put(
            Member(f"web{n}", f"10.{n // 65536}.{n // 256 % 256}.{n % 256}", self._tags(8080, n)) for n in range(count)
        )
        self.run()

    def _tags(self, port: int, number: int = 1) -> dict[str, str]:
        if self._service_count:
            return {"role": "web", f"svc.s{number % self._service_count}": f"{port}:w10"}
        return {"role": "web", "port": str(port), "weight": "10"}

    def change(self, path: str) -> dict[str, Any]:
        """Change the port of a node; return the settings for the pass."""
        self._number += 1
        node = self.membership.members["web1"]._replace(tags=self._tags(10000 + self._number))
        self.membership.put([node])
        self.membership.pack()  # packed now and not while it is measured
        if path != "hint":
            self.membership.event("member-update", [node])
        if path != "reload":
            return {}
        self._balance = "leastconn" if self._balance == "roundrobin" else "roundrobin"
        return {"balance": self._balance}

    def hasten(self, name: str) -> bool:
        """Give HAProxy the server of a member ahead of the pass."""
        return self._reconciler.hasten({name}, self.client.ask_some)

    def run(self, on_step: Any = str, **changes: Any) -> Outcome:
        """Run a pass."""
        # The daemon keeps its reconciler, and makes another one when its settings change.
        settings = self.proxy.settings.replace(**changes)
        reconciler = Reconciler(settings, self.memory) if changes else self._reconciler
        return reconciler.reconcile(self.client.ask, is_resync=True, on_step=on_step)


@contextlib.contextmanager
def running_cluster(count: int, own_template: bool = False, service_count: int = 0) -> Iterator[Cluster]:
    """Run a balancer with nodes, in one service or several, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
        template = Path(directory, "own.j2")
        checks = "check inter {{ check_interval_s }}s fastinter 250ms downinter 50ms"
        assert checks in TEMPLATE
        template.write_text(TEMPLATE.replace(checks, "check inter 1h"))
        own = {"SERF_HAPROXY_TEMPLATE_PATH": str(template)} if own_template else {}
        if service_count:
            services = Path(directory, "services.toml")
            services.write_text("".join(f'[s{n}]\nroutes = ["s{n}.test"]\n' for n in range(service_count)))
            own["SERF_HAPROXY_SERVICES_FILE"] = str(services)
        with (
            mock.patch.object(rendering, "BUILT_IN_TEMPLATE", str(template)),
            running_proxy(Path(directory), **own) as proxy,
        ):
            membership = Membership(proxy.environment)
            with serving(membership, proxy.settings.rpc_addr):
                cluster = Cluster(proxy, membership, count, service_count)
                time.sleep(SETTLED_S)
                cluster.run()
                yield cluster
                cluster.client.close()


def measure(cluster: Cluster, path: str) -> Shares:
    """Change one node and measure a pass."""
    changes = cluster.change(path)
    at_s: dict[str, float] = {}
    answers_s = [0.0]
    first, last = ("published", "confirmed") if path == "reload" else ("compared", "applied")

    def ask(*words: Any) -> str:
        asked_s = time.perf_counter()
        answer = socket.ask(*words)
        # Questions during the change or the reload are part of its time already.
        answers_s[0] += 0.0 if first in at_s and last not in at_s else time.perf_counter() - asked_s
        return answer

    def on_step(step: str) -> None:
        at_s[step] = time.perf_counter()

    assert cluster.proxy.process
    pid = cluster.proxy.process.pid
    outcomes = []
    haproxy_s = tree_cpu_s(pid)
    started_s, cpu_s = time.perf_counter(), time.thread_time()
    with mock.patch.object(runtime, "ask", ask), mock.patch.object(master, "ask", ask):
        check_cpu_s = child_cpu_s(lambda: outcomes.append(cluster.run(on_step, **changes)))
    whole_s, our_cpu_s = time.perf_counter() - started_s, time.thread_time() - cpu_s
    haproxy_s = tree_cpu_s(pid) - haproxy_s + check_cpu_s
    expected = Verdict.RELOADED if path == "reload" else Verdict.APPLIED
    assert outcomes[0].verdict is expected, outcomes
    check_s = at_s["checked"] - at_s["applied"]
    change_s = at_s[last] - at_s[first]
    ours_s = whole_s - check_s - change_s - answers_s[0]
    return Shares(ours_s, our_cpu_s, check_s, change_s, answers_s[0], whole_s, haproxy_s)


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("growth", options)
    medians: dict[str, dict[int, Shares]] = {path: {} for path in PATHS}
    for count in options.counts:
        with running_cluster(count, options.own_template) as cluster:
            for path in PATHS:
                shares = [measure(cluster, path) for _ in range(options.rounds)]
                medians[path][count] = Shares(*(median(each) for each in zip(*shares, strict=True)))
    for path, by_count in medians.items():
        rows = []
        before = None
        for count, found in by_count.items():
            shown = (f"{1000 * value:.1f}" for value in found)
            rows.append((f"{count:,}", *shown, f"{found.ours_s / before.ours_s:.2f}" if before else "-"))
            before = found
        change = "reload, ms" if path == "reload" else "at run time, ms"
        header = ("ours, ms", "our CPU, ms", "haproxy -c, ms", change, "answers, ms", "whole, ms", "HAProxy's CPU, ms")
        print(f"\n{path}:")
        report.add_table(path, ("nodes", *header, "ours grew"), rows)
    for path, by_count in medians.items():
        judge(report, path, by_count)
    report.add_data(shares={path: {n: each._asdict() for n, each in by.items()} for path, by in medians.items()})
    report.write()


def judge(report: Report, path: str, by_count: dict[int, Shares]) -> None:
    """Compare the results of one path with the goals."""
    if {10, 1000} <= by_count.keys():
        few, many = by_count[10], by_count[1000]
        cpu, ours = many.our_cpu_s / few.our_cpu_s, many.ours_s / few.ours_s
        found = f"{cpu:.2f} in our CPU, {ours:.2f} in our time, {many.whole_s / few.whole_s:.2f} in the whole"
        report.add_goal(f"1,000 nodes cost less than 5 times 10 nodes, by {path}", found, max(cpu, ours) < 5)
    if 1000 in by_count:
        ours_s, check_s = by_count[1000].ours_s, by_count[1000].check_s
        found = f"{1000 * ours_s:.1f} and {1000 * check_s:.1f} ms"
        report.add_goal(f"ours takes less than haproxy -c at 1,000 nodes, by {path}", found, ours_s < check_s)
    counts = [count for count in by_count if count <= LINEAR_COUNT]
    steps = [(many, by_count[many].ours_s / by_count[few].ours_s, many / few) for few, many in pairwise(counts)]
    if steps:
        found = ", ".join(f"{grew:.2f} of {nodes:g} times to {many:,}" for many, grew, nodes in steps)
        is_met = all(grew <= nodes for _, grew, nodes in steps)
        report.add_goal(f"ours grows no faster than the nodes up to {LINEAR_COUNT:,}, by {path}", found, is_met)


def compare(options: argparse.Namespace) -> None:
    """Compare passes among nodes of several services with passes among as many nodes of one, in turn."""
    report = Report("services", options)
    rows = []
    for count in options.counts:
        with running_cluster(count) as one, running_cluster(count, service_count=options.services) as several:
            pairs = [(measure(one, "event"), measure(several, "event")) for _ in range(options.rounds)]
        found = [Shares(*(median(each) for each in zip(*side, strict=True))) for side in zip(*pairs, strict=True)]
        ratios = [many / few for few, many in zip(*found, strict=True)]
        for name, values in (("one service", found[0]), (f"{options.services} services", found[1])):
            shown = (f"{1000 * value:.1f}" for value in (values.ours_s, values.our_cpu_s, values.whole_s))
            rows.append((f"{count:,}", name, *shown))
        said = dict(zip(Shares._fields, ratios, strict=True))
        text = (
            f"{said['our_cpu_s']:.2f} in our CPU, {said['ours_s']:.2f} in our time, {said['whole_s']:.2f} in the whole"
        )
        goal = f"a pass among {count:,} nodes in {options.services} services costs at most 1.3 of one in one service"
        report.add_goal(goal, text, max(said["our_cpu_s"], said["whole_s"]) <= 1.3)
    report.add_table("services", ("nodes", "in", "ours, ms", "our CPU, ms", "whole, ms"), rows)
    report.write()


def hasten(cluster: Cluster, number: int) -> tuple[float, float]:
    """Let a node join; return our CPU until HAProxy has its server, and of the pass that follows, seconds."""
    name = f"new{number}"
    tags = {"role": "web", "port": "8080", "weight": "10"}
    cluster.membership.put([Member(name, f"10.200.{number // 256}.{number % 256}", tags)])
    cluster.membership.pack()  # packed now and not while it is measured
    began_s = time.thread_time()
    assert cluster.hasten(name)
    hastened_s = time.thread_time()
    assert cluster.run().verdict is Verdict.APPLIED
    return hastened_s - began_s, time.thread_time() - hastened_s


def compare_ahead(options: argparse.Namespace) -> None:
    """Compare what a join costs until HAProxy has it, ahead of the pass and in the pass."""
    report = Report("ahead", options)
    rows, found = [], {}
    for count in options.counts:
        with running_cluster(count) as cluster:
            pairs = [hasten(cluster, number) for number in range(options.rounds)]
        ahead_s, pass_s = (median(side) for side in zip(*pairs, strict=True))
        found[count] = ahead_s
        rows.append((f"{count:,}", f"{1000 * ahead_s:.1f}", f"{1000 * pass_s:.1f}", f"{pass_s / ahead_s:.0f}"))
    report.add_table("ahead", ("nodes", "ahead, CPU ms", "the pass, CPU ms", "times"), rows)
    few, many = min(found), max(found)
    goal = f"our CPU until HAProxy has a join among {many:,} is at most 3 times that among {few:,}"
    report.add_goal(goal, f"{found[many] / found[few]:.2f}", found[many] <= 3 * found[few])
    report.write()


def profile(options: argparse.Namespace) -> None:
    """Print the functions in which a pass spends the most time."""
    for count in options.counts:
        with running_cluster(count, options.own_template) as cluster:
            for path in ("event", "hint"):
                profiler = cProfile.Profile()
                for _ in range(options.rounds):
                    cluster.change(path)
                    profiler.runcall(cluster.run)
                print(f"\n{count} nodes, {path}, {options.rounds} passes:")
                pstats.Stats(profiler).sort_stats(options.profile).print_stats(25)


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000, 5000, 10000])
    parser.add_argument("--own-template", action="store_true")
    parser.add_argument("--profile", choices=["tottime", "cumtime"], help="print a profile in this order instead")
    parser.add_argument("--services", type=int, default=0, help="compare one service with so many")
    parser.add_argument("--ahead", action="store_true", help="compare a join ahead of the pass with the pass")
    arguments = parser.parse_args()
    way = compare if arguments.services else compare_ahead if arguments.ahead else main
    (profile if arguments.profile else way)(arguments)
