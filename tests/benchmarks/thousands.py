"""Ten thousand members: the start, one change, rest, and a storm, with a real HAProxy and the real daemon.

Usage: .venv/bin/python tests/benchmarks/thousands.py [--members 10000] [--changes 40] [--rest-s 120] [--results DIR]

A simulated Serf agent gives the roster, the log and the events, as a Serf agent does. It is a process of its own, which
shares the processors with the daemon and HAProxy. One real HTTP server listens on all addresses. HAProxy "knows" a
member when it has the server; the first good health check follows within the limit of checks a second.

1. The daemon starts while HAProxy has no server, and once more while it has all.
2. Members change one at a time: another weight, then joins. From the log line until HAProxy has it, and the pass that
   follows.
3. Nothing changes for a while.
4. In a storm half as many members join as there are, and as many leave, in random order.
"""

import argparse
import concurrent.futures
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from applications import one_for_all
from balancer import Daemon, PassCounter, running_daemon
from measure import Report, make_parser, memory_mib, peak_memory_mib, percentile, tree_cpu_s
from membership import Coalescer, Member, Membership, serving

from integration.proxy import Proxy, free_port, running_proxy, wait_for
from serf_haproxy.control.state import State
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.socket import ask

LONG_S = 600.0
ASK_S = 30.0
LOOK_S = 0.2  # HAProxy works for some 20 ms to tell of ten thousand servers
QUIET_S = 1.5  # longer than until the pass that verifies a correction
SETTLE_S = 5.0  # one more query of the roster, and servers are deleted
COSTS = ("took, s", "daemon, CPU s", "haproxy -c, CPU s", "HAProxy, CPU s")


class Cost(NamedTuple):
    """Seconds that something took, and CPU seconds of the daemon, of `haproxy -c` and of HAProxy."""

    took_s: float
    daemon_s: float
    check_s: float
    haproxy_s: float

    def show(self) -> tuple[str, ...]:
        """Return the cells of a row."""
        return tuple(f"{value:.2f}" for value in self)


class Change(NamedTuple):
    """One change, seconds.

    Attributes:
        had_s: From the log line until HAProxy has it.
        pass_s: How long the pass took that followed.
        cpu_s: The daemon's CPU for both.
    """

    had_s: float
    pass_s: float
    cpu_s: float


def make_member(number: int, port: int, weight: int = 10) -> Member:
    """Return a member with an address of its own."""
    address = f"127.{1 + number // 65536}.{number // 256 % 256}.{number % 256}"
    return Member(f"web{number:05}", address, {"role": "web", "port": str(port), "weight": str(weight)})


def read_weights(proxy: Proxy) -> dict[str, int]:
    """Return the weights of HAProxy's servers by name."""
    rows = map(str.split, ask(proxy.settings.runtime_socket, "show servers state nodes", ASK_S).splitlines()[2:])
    return {row[3]: int(row[7]) for row in rows if row}


def count_up(proxy: Proxy) -> int:
    """Return how many servers HAProxy sees up."""
    rows = map(str.split, ask(proxy.settings.runtime_socket, "show servers state nodes", ASK_S).splitlines()[2:])
    return sum(1 for row in rows if row and row[5] == "2")


def wait_slowly(is_done: Callable[[], bool], what: str) -> None:
    """Wait until something holds that is costly to ask."""

    def look() -> bool:
        time.sleep(LOOK_S)
        return is_done()

    wait_for(look, what, LONG_S)


def measure(daemon: Daemon, work: Callable[[], float]) -> Cost:
    """Return what some work costs, which returns how long it took, seconds."""
    before = daemon.cpu_s(), daemon.check_cpu_s(), daemon.haproxy_cpu_s()
    took_s = work()
    after = daemon.cpu_s(), daemon.check_cpu_s(), daemon.haproxy_cpu_s()
    return Cost(took_s, *(late - early for late, early in zip(after, before, strict=True)))


def start(proxy: Proxy, count: int) -> tuple[float, Cost]:
    """Start the daemon and stop it; return when HAProxy knew all members, and the cost until the first pass ended."""
    assert proxy.process
    began_s, haproxy_s = time.monotonic(), tree_cpu_s(proxy.process.pid)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        known = pool.submit(wait_known, proxy, f"web{count - 1:05}")
        with running_daemon(proxy) as daemon:
            took_s = time.monotonic() - began_s
            cost = Cost(took_s, daemon.cpu_s(), daemon.check_cpu_s(), daemon.haproxy_cpu_s() - haproxy_s)
            known_s = known.result() - began_s
            assert len(read_weights(proxy)) == count
    Path(proxy.settings.state_dir, "last_pass.json").unlink()
    return known_s, cost


def wait_known(proxy: Proxy, name: str) -> float:
    """Wait until HAProxy has a server; return when it had it, on the monotonic clock."""

    def is_known() -> bool:
        with contextlib.suppress(HaproxyFault):
            return "No such" not in ask(proxy.settings.runtime_socket, f"get weight nodes/{name}", ASK_S)
        return False

    wait_for(is_known, f"HAProxy has {name}", LONG_S)
    return time.monotonic()


def change(daemon: Daemon, membership: Membership, member: Member) -> Change:
    """Change a member; return what that took."""
    kind = "member-update" if member.name in membership.members else "member-join"
    membership.put([member], kind)
    membership.pack()  # packed now and not while it is measured
    socket_path, state = daemon.proxy.settings.runtime_socket, State(daemon.proxy.settings.state_dir)
    began_s, at_s, cpu_s = time.monotonic(), time.time(), daemon.cpu_s()
    membership.hint(kind, [member])
    while not ask(socket_path, f"get weight nodes/{member.name}", ASK_S).startswith(f"{member.tags['weight']} "):
        assert time.monotonic() < began_s + LONG_S, f"{member} is not in HAProxy"
        time.sleep(0.001)
    had_s = time.monotonic() - began_s
    wait_slowly(lambda: state.read_record().at_s > at_s, "the pass that follows")
    took_s, cpu_s = state.read_record().took_s, daemon.cpu_s() - cpu_s
    wait_quiet(daemon)
    return Change(had_s, took_s, cpu_s)


def wait_quiet(daemon: Daemon) -> None:
    """Wait until the daemon has nothing to do: a pass with corrections is followed by another one."""

    def is_quiet() -> bool:
        before_s = daemon.cpu_s()
        time.sleep(QUIET_S)
        return daemon.cpu_s() < before_s + 0.005

    wait_for(is_quiet, "the daemon has nothing to do", LONG_S)


def rest(span_s: float) -> float:
    """Leave everything as it is for some time."""
    time.sleep(span_s)
    return span_s


def let_storm(daemon: Daemon, membership: Membership, changes: list[tuple[str, Member]], span_s: float) -> float:
    """Let members join and leave, spread over some time; return how long HAProxy was behind the last, seconds."""
    began_s = time.monotonic()
    with Coalescer(membership) as coalescer:
        for number, (kind, member) in enumerate(changes):
            if (pause_s := began_s + span_s * number / len(changes) - time.monotonic()) > 0:
                time.sleep(pause_s)
            membership.put([member], kind)
            membership.hint(kind, [member])
            coalescer.note(kind, member)
        last_s = time.monotonic()
        names = {name for name, member in membership.members.items() if member.status == "alive"}
        wait_slowly(lambda: _list_used(daemon.proxy) == names, "HAProxy has all changes")
        return time.monotonic() - last_s


def _list_used(proxy: Proxy) -> set[str]:
    return {name for name, weight in read_weights(proxy).items() if weight}


def tell_start(report: Report, proxy: Proxy, count: int) -> None:
    """Report two starts of the daemon."""
    costs = {what: start(proxy, count) for what in ("HAProxy has no server", "HAProxy has all")}
    rows = [(what, f"{known_s:.2f}", *cost.show()) for what, (known_s, cost) in costs.items()]
    report.add_table("start", ("at the start", "HAProxy knows all, s", "first pass ends, s", *COSTS[1:]), rows)
    known_s, _ = costs["HAProxy has no server"]
    report.add_goal(f"{count:,} members are known to HAProxy 3 s after the start", f"{known_s:.1f} s", known_s <= 3)


def tell_changes(report: Report, done: dict[str, list[Change]]) -> None:
    """Report changes of one member at a time."""
    rows = []
    for what, changes in done.items():
        had = (f"{1000 * percentile([each.had_s for each in changes], percent):.0f}" for percent in (50, 95, 100))
        took = (f"{1000 * percentile([each.pass_s for each in changes], percent):.0f}" for percent in (50, 100))
        cpu_ms = 1000 * percentile([each.cpu_s for each in changes], 50)
        rows.append((what, len(changes), *had, *took, f"{cpu_ms:.0f}"))
    had = ("until HAProxy has it: p50, ms", "p95, ms", "max, ms")
    report.add_table("changes", ("change", "count", *had, "the pass: p50, ms", "max, ms", "daemon, CPU ms"), rows)
    had_ms = [1000 * each.had_s for changes in done.values() for each in changes]
    p50, p95 = percentile(had_ms, 50), percentile(had_ms, 95)
    goal = "from Serf's log line to HAProxy at most 15 ms in the median, 30 ms in the 95th percentile"
    report.add_goal(goal, f"{p50:.0f} and {p95:.0f} ms", p50 <= 15 and p95 <= 30)
    pass_s = percentile([each.pass_s for changes in done.values() for each in changes], 50)
    report.add_goal("a full pass takes less than 1 s", f"{pass_s:.2f} s in the median", pass_s < 1)


def tell_rest(report: Report, daemon: Daemon, span_s: float) -> None:
    """Report what the balancer uses while nothing changes."""
    with PassCounter(daemon.proxy) as passes:
        cost = measure(daemon, lambda: rest(span_s))
    share, haproxy_share = (100 * used_s / span_s for used_s in (cost.daemon_s, cost.haproxy_s))
    row = (f"{span_s:.0f}", passes.count, f"{cost.daemon_s:.2f}", f"{share:.2f}", f"{haproxy_share:.1f}")
    report.add_table("rest", ("rest, s", "passes", "daemon, CPU s", "daemon, %", "HAProxy, %"), [row])
    report.add_goal("the daemon uses at most 0.3 % of a core at rest", f"{share:.2f} %", share <= 0.3)


def tell_storm(report: Report, daemon: Daemon, membership: Membership, options: argparse.Namespace, port: int) -> None:
    """Report a storm, and the memory of the daemon after all that was before."""
    half = options.members // 2
    joins = [("member-join", make_member(2 * options.members + number, port)) for number in range(half)]
    changes = joins + [("member-leave", make_member(half + number, port)) for number in range(half)]
    random.Random(1).shuffle(changes)
    reload_count = daemon.proxy.reload_count()
    with PassCounter(daemon.proxy) as passes:
        cost = measure(daemon, lambda: let_storm(daemon, membership, changes, options.storm_s))
    time.sleep(min(SETTLE_S, options.storm_s))
    reload_count = daemon.proxy.reload_count() - reload_count
    now_mib, peak_mib = memory_mib(daemon.process.pid)[0], peak_memory_mib(daemon.process.pid)
    row = (
        f"{half:,} join, {half:,} leave",
        *cost.show(),
        passes.count,
        reload_count,
        f"{now_mib:.0f}",
        f"{peak_mib:.0f}",
    )
    header = ("storm", "behind the last, s", *COSTS[1:], "passes", "reloads", "daemon, MiB", "at most, MiB")
    report.add_table("storm", header, [row])
    report.add_goal("HAProxy has all 3 s after the last change of a storm", f"{cost.took_s:.1f} s", cost.took_s <= 3)
    report.add_goal("no reload in a storm", f"{reload_count}", reload_count == 0)
    report.add_goal("the daemon has at most 120 MiB", f"{peak_mib:.0f} MiB", peak_mib <= 120)


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("thousands", options)
    port = free_port("0.0.0.0")
    members = [make_member(number, port) for number in range(options.members)]
    with (
        tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory,
        tempfile.TemporaryDirectory(prefix="sh-", dir="/dev/shm") as nodes_dir,  # in memory, as /run is
        one_for_all(Path(directory), port),
        running_proxy(Path(directory), SERF_HAPROXY_NODES_DIR=nodes_dir) as proxy,
    ):
        membership = Membership(proxy.environment)
        membership.put(members)
        with serving(membership, proxy.settings.rpc_addr):
            tell_start(report, proxy, options.members)
            with running_daemon(proxy) as daemon:
                began_s = time.monotonic()
                wait_slowly(lambda: count_up(proxy) == options.members, "all servers are up")
                print(f"all are up after {time.monotonic() - began_s:.0f} s more, {proxy.reload_count()} reloads")
                wait_quiet(daemon)
                count = options.changes // 2
                changed = {"another weight": [make_member(number, port, 20) for number in range(count)]}
                changed["a join"] = [make_member(options.members + number, port, 20) for number in range(count)]
                tell_changes(
                    report, {what: [change(daemon, membership, one) for one in ones] for what, ones in changed.items()}
                )
                tell_rest(report, daemon, options.rest_s)
                tell_storm(report, daemon, membership, options, port)
    report.write()


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--members", type=int, default=10000)
    parser.add_argument("--changes", type=int, default=40)
    parser.add_argument("--rest-s", type=float, default=120.0)
    parser.add_argument("--storm-s", type=float, default=10.0, help="how long the storm lasts (default: 10)")
    main(parser.parse_args())
