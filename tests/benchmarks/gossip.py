"""Many real Serf agents join one balancer on loopback; then the balancer is idle.

Usage: .venv/bin/python tests/benchmarks/gossip.py [--agents 100] [--rest-s 60] [--results DIR]

The balancer is a real Serf agent with the handler, the daemon with hints, and HAProxy. The other Serf agents have the
LAN profile and an address each; they start one after another without a pause and join the balancer. One real HTTP
server listens on all addresses. In the end each address must have answered a request. Then there is no change for a
while, and the daemon's use of CPU and memory is measured.
"""

import argparse
import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from applications import accepts, one_for_all
from balancer import Daemon, running_daemon
from measure import Report, cpu_s, make_parser, median, memory_mib, percentile, tree_cpu_s
from membership import HANDLER

from integration.proxy import free_port, running_proxy, wait_for

JOINED_S = 300.0
SETTLE_S = 20.0  # the last events, and one more query of the roster


@contextlib.contextmanager
def running_balancer(directory: Path, port: int) -> Iterator[tuple[Daemon, subprocess.Popen[bytes], str]]:
    """Run a balancer for the length of the block; yield its daemon, its Serf agent and its gossip address."""
    with one_for_all(directory, port), running_proxy(directory) as proxy, running_daemon(proxy) as daemon:
        bind = f"127.0.0.1:{free_port()}"
        host, rpc_port = proxy.settings.rpc_addr
        argv = ["serf", "agent", "-node=lb", f"-bind={bind}", f"-rpc-addr={host}:{rpc_port}", "-tag", "role=balancer"]
        argv.append(f"-event-handler=member-join,member-leave,member-failed,member-update,member-reap={HANDLER}")
        with running_agent(argv, proxy.environment) as agent:
            wait_for(lambda: accepts(host, rpc_port), "the balancer's Serf agent")
            yield daemon, agent, bind


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


def start_agents(stack: contextlib.ExitStack, count: int, port: int, bind: str) -> dict[str, tuple[float, int]]:
    """Start Serf agents; return start time and process id of each, by address."""
    started = {}
    for number in range(count):
        address = f"127.3.{number // 250}.{1 + number % 250}"
        argv = ["serf", "agent", f"-node=web{number}", f"-bind={address}:7946", f"-rpc-addr={address}:7373"]
        argv += ["-tag", "role=web", "-tag", f"port={port}", f"-retry-join={bind}", "-retry-interval=1s"]
        agent = stack.enter_context(running_agent(argv, {}))
        started[address] = time.monotonic(), agent.pid
    return started


def wait_until_routed(daemon: Daemon, started: dict[str, tuple[float, int]]) -> dict[str, float]:
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
    """Make requests, each with a new connection; return the addresses that answered."""
    host, _, port = frontend.rpartition(":")
    seen = set()
    for _ in range(count):
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200
        seen.add(answer.getheader("X-Backend-IP", ""))
        connection.close()
    return seen


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("gossip", options)
    port = free_port("0.0.0.0")
    with (
        contextlib.ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory,
        running_balancer(Path(directory), port) as (daemon, agent, bind),
    ):
        started_s = time.monotonic()
        started = start_agents(stack, options.agents, port, bind)
        took_s = wait_until_routed(daemon, started)
        whole_s = time.monotonic() - started_s
        answered = ask_each(daemon.proxy.settings.frontend_bind, 2 * options.agents)
        tell_joins(report, daemon, agent.pid, [pid for _, pid in started.values()])
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
    report.write()


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
    main(parser.parse_args())
