"""Many real Serf agents join one balancer on loopback; then the balancer is idle.

Usage: .venv/bin/python tests/benchmarks/gossip.py [--agents 100] [--rest-s 60] [--results DIR]
       .venv/bin/python tests/benchmarks/gossip.py --balancers 3 --silence-s 20 --restart [--agents 200]

The balancer is a real Serf agent with the handler, the daemon with hints, and HAProxy. The other Serf agents have the
LAN profile and an address each; they start one after another without a pause and join the balancer. One real HTTP
server listens on all addresses. In the end each address must have answered a request. Then there is no change for a
while, and the daemon's use of CPU and memory is measured.

With --balancers several balancers hear the same members. With --silence-s half of the Serf agents say nothing for so
long, as if they were cut off, and come back. With --restart all Serf agents leave and start again, one after another.
In both, the applications go on answering, and each balancer has a client whose lost requests are counted.
"""

import argparse
import collections
import contextlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from applications import accepts, one_for_all
from balancer import Daemon, running_daemon
from measure import Report, cpu_s, make_parser, median, memory_mib, percentile, tree_cpu_s
from membership import HANDLER
from visitor import Client

from integration.proxy import free_port, running_proxy, wait_for

JOINED_S = 300.0
RATE = 50.0
SETTLE_S = 20.0  # the last events, and one more query of the roster


class Balancer(NamedTuple):
    """A balancer: its daemon, its Serf agent and its gossip address."""

    daemon: Daemon
    agent: "subprocess.Popen[bytes]"
    bind: str


@contextlib.contextmanager
def running_balancer(directory: Path, name: str) -> Iterator[Balancer]:
    """Run a balancer for the length of the block."""
    directory.mkdir()
    with running_proxy(directory) as proxy, running_daemon(proxy) as daemon:
        bind = f"127.0.0.1:{free_port()}"
        host, rpc_port = proxy.settings.rpc_addr
        argv = [
            "serf",
            "agent",
            f"-node={name}",
            f"-bind={bind}",
            f"-rpc-addr={host}:{rpc_port}",
            "-tag",
            "role=balancer",
        ]
        argv.append(f"-event-handler=member-join,member-leave,member-failed,member-update,member-reap={HANDLER}")
        with running_agent(argv, proxy.environment) as agent:
            wait_for(lambda: accepts(host, rpc_port), "the balancer's Serf agent")
            yield Balancer(daemon, agent, bind)


@contextlib.contextmanager
def running_agent(argv: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a Serf agent for the length of the block."""
    environ = os.environ | environment
    agent = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield agent
    finally:
        agent.kill()
        agent.wait(10)


Agents = dict[str, tuple[float, "subprocess.Popen[bytes]"]]


def make_command(number: int, port: int, binds: list[str]) -> tuple[str, list[str]]:
    """Return the address of a Serf agent, and its command line."""
    address = f"127.3.{number // 250}.{1 + number % 250}"
    argv = ["serf", "agent", f"-node=web{number}", f"-bind={address}:7946", f"-rpc-addr={address}:7373"]
    argv += ["-tag", "role=web", "-tag", f"port={port}", "-retry-interval=1s"]
    return address, argv + [f"-retry-join={bind}" for bind in binds]


def start_agents(stack: contextlib.ExitStack, count: int, port: int, binds: list[str]) -> Agents:
    """Start Serf agents; return start time and process of each, by address."""
    started = {}
    for number in range(count):
        address, argv = make_command(number, port, binds)
        agent = stack.enter_context(running_agent(argv, {}))
        started[address] = time.monotonic(), agent
    return started


def wait_until_routed(daemon: Daemon, started: Agents) -> dict[str, float]:
    """Wait until the servers of all Serf agents are up in HAProxy; return how long each took, seconds."""
    took_s: dict[str, float] = {}

    def look() -> bool:
        now_s = time.monotonic()
        for endpoint in daemon.up().values():
            address = endpoint.rpartition(":")[0]
            took_s.setdefault(address, now_s - started[address][0])
        return len(took_s) == len(started)

    wait_for(look, lambda: f"{len(took_s)} of {len(started)} are routed", JOINED_S)
    return took_s


def ask_each(frontend: str, count: int) -> set[str]:
    """Make requests, each with a new connection; return the addresses that answered with success."""
    host, _, port = frontend.rpartition(":")
    seen = set()
    for _ in range(count):
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/")
        answer = connection.getresponse()
        if answer.status == 200:
            seen.add(answer.getheader("X-Backend-IP", ""))
        connection.close()
    return seen


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("gossip-troubles" if options.silence_s or options.restart else "gossip", options)
    port = free_port("0.0.0.0")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp")))
        stack.enter_context(one_for_all(directory, port))
        names = ["lb", *(f"lb{number}" for number in range(2, options.balancers + 1))]
        balancers = [stack.enter_context(running_balancer(directory / name, name)) for name in names]
        daemon, agent, _ = balancers[0]
        started_s = time.monotonic()
        binds = [balancer.bind for balancer in balancers]
        started = start_agents(stack, options.agents, port, binds)
        took_s = wait_until_routed(daemon, started)
        whole_s = time.monotonic() - started_s
        answered = ask_each(daemon.proxy.settings.frontend_bind, 2 * options.agents)
        tell_joins(report, daemon, agent.pid, [agent.pid for _, agent in started.values()])
        took = sorted(took_s.values())
        shown = (f"{percentile(took, percent):.2f}" for percent in (50, 95, 100))
        header = (
            "Serf agents",
            "from the first start to the last route, s",
            "start to route: p50, s",
            "p95, s",
            "max, s",
        )
        report.add_table("joins", header, [(options.agents, f"{whole_s:.1f}", *shown)])
        found = f"{len(answered & started.keys())} of {options.agents}"
        report.add_goal("the addresses of all Serf agents answer requests", found, answered == started.keys())
        report.add_data(took_s=took)
        time.sleep(min(SETTLE_S, options.rest_s))
        tell_rest(report, daemon, options)
        tell_troubles(report, stack, balancers, started, options)
    report.write()


def tell_troubles(
    report: Report, stack: contextlib.ExitStack, balancers: list[Balancer], started: Agents, options: argparse.Namespace
) -> None:
    """Report what comes of a silence of half of the Serf agents, and of the restart of all, where that is asked."""
    rows = []
    for balancer in balancers:
        wait_until_routed(balancer.daemon, started)
    agents = [agent for _, agent in started.values()]
    if options.silence_s:
        rows.append(("half are silent", *trouble(balancers, started, lambda: be_silent(agents, options.silence_s))))
    if options.restart:
        binds, port = (
            [balancer.bind for balancer in balancers],
            int(balancers[0].daemon.up()["web0"].rpartition(":")[2]),
        )
        rows.append(("all restart", *trouble(balancers, started, lambda: restart(stack, agents, port, binds))))
    if rows:
        header = ("trouble", "balancers", "took, s", "until all serve again, s", "requests", "lost")
        report.add_table("troubles", header, rows)
        report.add_goal(
            "no request is lost", ", ".join(str(row[-1]) for row in rows), all(row[-1] == "0" for row in rows)
        )


def trouble(balancers: list[Balancer], started: Agents, cause: Callable[[], None]) -> tuple[object, ...]:
    """Cause trouble under a load; return balancers, how long it and its end took, seconds, requests and lost ones."""
    frontends = [balancer.daemon.proxy.settings.frontend_bind for balancer in balancers]
    clients = [Client(int(frontend.rpartition(":")[2]), RATE) for frontend in frontends]
    for client in clients:
        client.start()
    began_s = time.monotonic()
    cause()
    ended_s = time.monotonic()
    for balancer in balancers:
        wait_for(lambda daemon=balancer.daemon: serve(daemon) == len(started), "all serve again", JOINED_S)
    again_s = time.monotonic() - ended_s
    for client in clients:
        client.close()
    lost = sum((client.lost for client in clients), collections.Counter[str]())
    requests = sum(client.count for client in clients)
    said = ", ".join(f"{count} {what}" for what, count in sorted(lost.items())) or "0"
    return len(balancers), f"{ended_s - began_s:.1f}", f"{again_s:.1f}", f"{requests:,}", said


def serve(daemon: Daemon) -> int:
    """Return how many servers are up and get requests."""
    weights = daemon.weights()
    return sum(1 for name in daemon.up() if weights.get(name))


def be_silent(agents: "list[subprocess.Popen[bytes]]", span_s: float) -> None:
    """Freeze half of the Serf agents for some time."""
    half = agents[::2]
    try:
        for agent in half:
            agent.send_signal(signal.SIGSTOP)
        time.sleep(span_s)
    finally:
        for agent in half:
            agent.send_signal(signal.SIGCONT)


def restart(stack: contextlib.ExitStack, agents: "list[subprocess.Popen[bytes]]", port: int, binds: list[str]) -> None:
    """Let each Serf agent leave and start again, one after another."""
    for number, agent in enumerate(agents):
        agent.send_signal(signal.SIGINT)
        agent.wait(30)
        _, argv = make_command(number, port, binds)
        stack.enter_context(running_agent(argv, {}))


def tell_joins(report: Report, daemon: Daemon, agent_pid: int, pids: list[int]) -> None:
    """Report what the joins have cost so far."""
    assert daemon.proxy.process
    workers = psutil.Process(daemon.proxy.process.pid).children()
    own = (f"{daemon.cpu_s():.2f}", *(f"{each:.1f}" for each in memory_mib(daemon.process.pid)))
    used_s = [cpu_s(pid) for pid in pids]
    memory = [memory_mib(pid) for pid in pids]
    rows = [
        ("daemon", 1, *own),
        ("haproxy -c", "-", f"{daemon.check_cpu_s():.2f}", "-", "-"),
        ("HAProxy, master and workers", 1 + len(workers), f"{daemon.haproxy_cpu_s():.2f}", *_sizes(workers)),
        ("balancer's Serf agent and its handlers", 1, f"{tree_cpu_s(agent_pid):.2f}", *_size(agent_pid)),
        ("a Serf agent (median)", len(pids), f"{median(used_s):.2f}", *_medians(memory)),
        ("all Serf agents", len(pids), f"{sum(used_s):.2f}", *_sums(memory)),
    ]
    report.add_table("costs", ("what", "processes", "CPU, s", "RSS, MiB", "PSS, MiB"), rows)


def tell_rest(report: Report, daemon: Daemon, options: argparse.Namespace) -> None:
    """Leave the balancer idle and report what the daemon used."""
    before_s, checks_s, started_s = daemon.cpu_s(), daemon.check_cpu_s(), time.monotonic()
    time.sleep(options.rest_s)
    used_s, span_s = daemon.cpu_s() - before_s, time.monotonic() - started_s
    rss_mib, pss_mib = memory_mib(daemon.process.pid)
    share = 100 * used_s / span_s
    row = (options.agents, f"{span_s:.0f}", f"{used_s:.2f}", f"{share:.2f}", f"{daemon.check_cpu_s() - checks_s:.2f}")
    header = ("nodes", "rest, s", "CPU, s", "CPU, %", "haproxy -c, s", "RSS, MiB", "PSS, MiB")
    report.add_table("rest", header, [(*row, f"{rss_mib:.1f}", f"{pss_mib:.1f}")])
    report.add_goal("CPU of the idle daemon below 0.2 %", f"{share:.2f} %", share < 0.2)
    memory = f"{rss_mib:.1f} RSS, {pss_mib:.1f} PSS"
    report.add_goal("its memory at most 45 MiB", memory, rss_mib <= 45)


def _size(pid: int) -> tuple[str, ...]:
    return tuple(f"{each:.1f}" for each in memory_mib(pid))


def _sizes(processes: list[psutil.Process]) -> tuple[str, ...]:
    return _sums([memory_mib(process.pid) for process in processes])


def _sums(sizes_mib: list[tuple[float, float]]) -> tuple[str, ...]:
    return tuple(f"{sum(each):.1f}" for each in zip(*sizes_mib, strict=True))


def _medians(sizes_mib: list[tuple[float, float]]) -> tuple[str, ...]:
    return tuple(f"{median(each):.1f}" for each in zip(*sizes_mib, strict=True))


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--agents", type=int, default=100, help="number of Serf agents (default: 100)")
    parser.add_argument("--rest-s", type=float, default=60, help="how long the balancer is idle (default: 60)")
    parser.add_argument("--balancers", type=int, default=1, help="number of balancers (default: 1)")
    parser.add_argument("--silence-s", type=float, default=0, help="how long half of the Serf agents are silent")
    parser.add_argument("--restart", action="store_true", help="restart all Serf agents, one after another")
    main(parser.parse_args())
