"""The time from a backend's join to its first request, and from its leave to the last one sent to it.

Ours, with and without hints, beside a plain `serf agent -event-handler` with a shell handler that renders and reloads.

Usage: .venv/bin/python tests/benchmarks/time_to_route.py [--joins 50] [--results DIR]

All three run at the same time on one machine and hear the same joins; a client of each asks without a pause, each time
on a new connection. The application of every backend answers before its Serf agent starts. For ours the way is told
apart as well: when Serf's agent of the balancer logged the change, when the resident logged that HAProxy has it.
"""

import argparse
import contextlib
import http.client
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import Report, make_parser, percentile
from membership import HANDLER

from integration.agents import run_serf
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_load import applications

GAP_S = 4.0  # more than Serf's coalescing, a handler and a reload: every join stands for itself
BALANCERS = ("ours", "ours, no hints", "shell handler")
# What is looked for in the logs of ours, with {name} for the node's name.
GOSSIPED = re.escape("serf: EventMemberJoin: {name} ")
LEFT_GOSSIPED = r"serf: messageLeaveType: {name}$"
LEFT = re.escape("serf: EventMemberLeave: {name} ")
ROUTED = r"(APPLIED|RELOADED) servers changed:.* \+{name}\b"
UNROUTED = r"(APPLIED|RELOADED) servers changed:.* [-~]{name}\b"

# What the field does: a line per server in the order of `serf members`, then a reload of the master.
SHELL_HANDLER = """#!/bin/sh
cat > /dev/null
{
    sed '/^    server /d; /^# The mark/,$d' "$CONFIG.base"
    printf 'backend nodes_of_shell\\n    balance roundrobin\\n'
    serf members -rpc-addr="$RPC" -status=alive -tag role=web |
        sed -n 's/^\\([^ ]*\\) *\\([0-9.]*\\):.*port=\\([0-9]*\\).*/    server \\1 \\2:\\3 check inter 1s/p'
} > "$CONFIG"
haproxy -c -f "$CONFIG" > /dev/null 2>&1 && kill -USR2 "$(cat "$CONFIG.pid")"
"""


class Client(threading.Thread):
    """A client that asks a frontend without a pause and notes when each backend was first and last met."""

    def __init__(self, frontend: str) -> None:
        super().__init__(daemon=True)
        self.host, _, self.port = frontend.rpartition(":")
        self.first_s: dict[str, float] = {}
        self.last_s: dict[str, float] = {}
        self.stopping = False

    def run(self) -> None:
        """Ask until told to stop."""
        while not self.stopping:
            started_s = time.monotonic()
            connection = http.client.HTTPConnection(self.host, int(self.port), timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/health")
                address = connection.getresponse().getheader("X-Backend-IP", "")
                self.first_s.setdefault(address, time.monotonic())
                self.last_s[address] = started_s
            connection.close()
            time.sleep(0.001)


class Log(threading.Thread):
    """Reads what a process says and notes when each line came."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._read_fd, self.write_fd = os.pipe()
        self.lines: list[tuple[float, str]] = []

    def run(self) -> None:
        """Read until whoever writes has ended."""
        with os.fdopen(self._read_fd, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                self.lines.append((time.monotonic(), line.rstrip("\n")))

    def close(self) -> None:
        """Close our end of the pipe; the reader ends with the last writer."""
        os.close(self.write_fd)
        self.join(10)

    def find_s(self, pattern: str, name: str, since_s: float) -> float | None:
        """Return when the first line came that matches a pattern, None when none did."""
        wanted = re.compile(pattern.replace("{name}", name).replace(r"\{name\}", name))
        return next((at_s for at_s, line in list(self.lines) if at_s >= since_s and wanted.search(line)), None)


class Balancer(NamedTuple):
    """A balancer that runs: its client, its gossip address, and what its Serf agent and its resident say."""

    client: Client
    bind: str
    serf_log: Log
    resident_log: Log


@contextlib.contextmanager
def ours(directory: Path, number: int, hints: str) -> Iterator[Balancer]:
    """Run a balancer of ours."""
    with running_proxy(directory) as proxy, reading() as log:
        environ = os.environ | proxy.environment | {"SERF_HAPROXY_HINTS": hints}
        argv = [sys.executable, "-m", "serf_haproxy", "run"]
        resident = subprocess.Popen(argv, env=environ, stderr=log.write_fd)
        try:
            with balancer(f"ours{number}", proxy, [f"-event-handler={HANDLER}"], environ, log) as running:
                yield running
        finally:
            resident.terminate()
            resident.wait(20)


@contextlib.contextmanager
def plain(directory: Path) -> Iterator[Balancer]:
    """Run a HAProxy that a shell handler rewrites and reloads."""
    with running_proxy(directory) as proxy, reading() as log:
        assert proxy.process
        config = Path(proxy.settings.config_path)
        base = config.read_text().replace("default_backend nodes", "default_backend nodes_of_shell")
        Path(f"{config}.base").write_text(base)
        Path(f"{config}.pid").write_text(str(proxy.process.pid))
        handler = directory / "handler"
        handler.write_text(SHELL_HANDLER)
        handler.chmod(0o755)
        host, port = proxy.settings.rpc_addr
        environ = os.environ | {"CONFIG": str(config), "RPC": f"{host}:{port}"}
        with balancer("plain", proxy, [f"-event-handler={handler}"], environ, log) as running:
            yield running


@contextlib.contextmanager
def reading() -> Iterator[Log]:
    """Read a log for the length of a block."""
    log = Log()
    log.start()
    try:
        yield log
    finally:
        log.close()


@contextlib.contextmanager
def balancer(
    name: str, proxy: Proxy, options: list[str], environ: dict[str, str], resident_log: Log
) -> Iterator[Balancer]:
    """Run a balancer's Serf agent, and a client of its frontend."""
    host, port = proxy.settings.rpc_addr
    bind = f"{host}:{free_port(host)}"
    argv = ["serf", "agent", f"-node={name}", f"-bind={bind}", f"-rpc-addr={host}:{port}", "-log-level=debug"]
    argv += ["-tag", "role=balancer", *options]
    with reading() as serf_log:
        agent = subprocess.Popen(argv, env=environ, stdout=serf_log.write_fd, stderr=serf_log.write_fd)
        info = ["serf", "info", f"-rpc-addr={host}:{port}"]
        client = Client(proxy.settings.frontend_bind)
        try:
            wait_for(lambda: subprocess.run(info, capture_output=True, check=False).returncode == 0, name)
            client.start()
            yield Balancer(client, bind, serf_log, resident_log)
            client.stopping = True
            client.join(10)
        finally:
            agent.kill()
            agent.wait(10)


class Times:
    """What was measured: of each balancer the seconds of every join and leave, and of ours those of the way."""

    def __init__(self, gap_s: float) -> None:
        self.gap_s = gap_s
        self.joins_s: dict[str, list[float]] = {name: [] for name in BALANCERS}
        self.leaves_s: dict[str, list[float]] = {name: [] for name in BALANCERS}
        self.join_way_s: list[dict[str, float | None]] = []
        self.leave_way_s: list[dict[str, float | None]] = []


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    report = Report("time-to-route", options)
    times = Times(options.gap_s)
    with contextlib.ExitStack() as stack:
        directories = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp"))) for _ in BALANCERS
        ]
        # The applications end last, when nobody asks them any more.
        ports = stack.enter_context(applications(2))
        running = [
            stack.enter_context(ours(directories[0], 1, "on")),
            stack.enter_context(ours(directories[1], 2, "off")),
            stack.enter_context(plain(directories[2])),
        ]
        balancers = dict(zip(BALANCERS, running, strict=True))
        joined = tuple(f"-join={each.bind}" for each in running)
        # One backend is always there, so that a leave does not end in 503.
        (kept, kept_port), (address, port) = ports.items()
        agent_options = (*joined, "-event-handler=true")
        tags = ("role=web", f"port={kept_port}")
        stack.enter_context(run_serf("kept", kept, free_port(kept), *tags, options=agent_options))
        time.sleep(options.gap_s)
        for number in range(options.joins):
            come_and_go(balancers, joined, f"web{number}", address, port, times)
    tell(report, times)
    report.write()


def come_and_go(  # noqa: PLR0917 - the place and the name of a backend
    balancers: dict[str, Balancer], joined: tuple[str, ...], name: str, address: str, port: int, times: Times
) -> None:
    """Let one backend join, and leave again when all balancers have it."""
    clients = {each: balancer.client for each, balancer in balancers.items()}
    mine = balancers["ours"]
    for client in clients.values():
        client.first_s.pop(address, None)
    argv = ["serf", "agent", f"-node={name}", f"-bind={address}:{free_port(address)}"]
    argv += [f"-rpc-addr={address}:{free_port(address)}", "-tag", "role=web", "-tag", f"port={port}", *joined]
    started_s = time.monotonic()
    agent = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: all(address in client.first_s for client in clients.values()), f"the join of {name}")
        for each, client in clients.items():
            times.joins_s[each].append(client.first_s[address] - started_s)
        pause(times.gap_s)
        times.join_way_s.append(
            way(
                started_s,
                {"Serf logs the join": (mine.serf_log, GOSSIPED), "logged": (mine.resident_log, ROUTED)},
                name,
            )
            | {"first request": times.joins_s["ours"][-1]}
        )
        left_s = time.monotonic()
        agent.send_signal(signal.SIGINT)
        agent.wait(20)
    finally:
        agent.kill()
        agent.wait(10)
    pause(times.gap_s)
    for each, client in clients.items():
        times.leaves_s[each].append(max(0.0, client.last_s[address] - left_s))
    logs = {
        "Serf logs the intent": (mine.serf_log, LEFT_GOSSIPED),
        "Serf logs the leave": (mine.serf_log, LEFT),
        "logged": (mine.resident_log, UNROUTED),
    }
    times.leave_way_s.append(way(left_s, logs, name) | {"last request": times.leaves_s["ours"][-1]})


def pause(gap_s: float) -> None:
    """Let everything come to rest, for a time that is in step with no timer of Serf's."""
    time.sleep(gap_s * random.uniform(1.0, 1.25))


def way(since_s: float, marks: dict[str, tuple[Log, str]], name: str) -> dict[str, float | None]:
    """Return how long after a moment each log had a line about a node."""
    found_s = {mark: log.find_s(pattern, name, since_s) for mark, (log, pattern) in marks.items()}
    return {mark: None if at_s is None else at_s - since_s for mark, at_s in found_s.items()}


def tell(report: Report, times: Times) -> None:
    """Print the tables."""
    rows = [
        (name, what, *(f"{1000 * percentile(values, percent):.0f}" for percent in (50, 95, 100)))
        for what, table in (("join to first request", times.joins_s), ("leave to last request", times.leaves_s))
        for name, values in table.items()
    ]
    report.add_table("times", ("balancer", "what", "p50, ms", "p95, ms", "max, ms"), rows)
    rows = []
    for what, ways_s in (("join", times.join_way_s), ("leave", times.leave_way_s)):
        for mark in ways_s[0]:
            at_s = [each_s for way_s in ways_s if (each_s := way_s[mark]) is not None]
            shown = (f"{1000 * percentile(at_s, percent):.0f}" for percent in (50, 95, 100)) if at_s else "---"
            rows.append((what, mark, len(at_s), *shown))
    report.add_table("way", ("from a", "until", "count", "p50, ms", "p95, ms", "max, ms"), rows)
    for what, ways_s, last in (
        ("join", times.join_way_s, "first request"),
        ("leave", times.leave_way_s, "last request"),
    ):
        for way_s in sorted(ways_s, key=lambda way_s: way_s[last] or 0.0)[-3:]:
            shown = (
                f"{mark} {1000 * at_s:.0f} ms" if at_s is not None else f"{mark} never" for mark, at_s in way_s.items()
            )
            print(f"a slow {what}: {', '.join(shown)}")
    ours_s, leaves_s = times.joins_s["ours"], times.leaves_s["ours"]
    ratio = percentile(times.joins_s["shell handler"], 50) / percentile(ours_s, 50)
    for goal, value_s, most_s in (
        ("median of a join at most 100 ms", percentile(ours_s, 50), 0.1),
        ("95th percentile of a join at most 250 ms", percentile(ours_s, 95), 0.25),
        ("95th percentile of a leave at most 150 ms", percentile(leaves_s, 95), 0.15),
    ):
        report.add_goal(goal, f"{1000 * value_s:.0f} ms", value_s <= most_s)
    report.add_goal("median of a join 15 times faster than a shell handler", f"{ratio:.1f}", ratio >= 15)
    report.add_data(
        joins_s=times.joins_s, leaves_s=times.leaves_s, join_way_s=times.join_way_s, leave_way_s=times.leave_way_s
    )


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--joins", type=int, default=50)
    parser.add_argument("--gap-s", type=float, default=GAP_S, help="pause after each join and each leave")
    main(parser.parse_args())
