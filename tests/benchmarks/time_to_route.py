"""The time from a backend's join to its first request, and from its leave to the last one sent to it.

Ours, with and without hints, beside a plain `serf agent -event-handler` with a shell handler that renders and reloads.

Usage: .venv/bin/python tests/benchmarks/time_to_route.py [--joins 50] [--profile local] [--results DIR]

All three run at the same time on one machine and hear the same joins; a client of each asks without a pause, each time
on a new connection. The backends answer before their Serf agents start. Half of the joins (`--joins`) name every
balancer and half name another backend alone, from which gossip has to carry the news. For ours the way is told
apart as well: when Serf's agent of the balancer logged the change, when the resident logged that HAProxy has it.
"""

import argparse
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends import Backend
from measure import Report, make_parser, percentile
from membership import HANDLER

from integration.agents import run_serf
from integration.proxy import Proxy, free_port, running_proxy, wait_for

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
ANSWERED_BY = re.compile(rb"\r\nx-backend-ip: *([0-9.]+)\r\n", re.IGNORECASE)
GAP_S = 3.0  # more than Serf's coalescing of one change, a handler and a reload: every join stands for itself
BALANCERS = ("ours", "ours, no hints", "shell handler")
DOORS = ("the balancers", "a backend")  # what a join names
LEFT_S = 15.0  # a leave that gossip lost takes Serf some seconds, a reload that was lost takes the next event
# What is looked for in the logs of ours, with {name} for the node's name.
GOSSIPED = re.escape("serf: EventMemberJoin: {name} ")
LEFT_GOSSIPED = r"serf: messageLeaveType: {name}$"
LEFT = re.escape("serf: EventMemberLeave: {name} ")
ROUTED = r"(APPLIED|RELOADED) servers changed:.* \+{name}\b"
RAISED = r"Server nodes/{name} is UP, reason: "  # and not "is UP/DRAIN", on the way there
_SAYINGS = ("Server nodes/", "Health check for server nodes/")
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
        host, _, port = frontend.rpartition(":")
        self.target = host, int(port)
        self.first_s: dict[str, float] = {}
        self.last_s: dict[str, float] = {}
        self.stopping = False

    def has_met(self, address: str, within_s: float) -> bool:
        """Tell whether a backend has answered in so many seconds before now."""
        return time.monotonic() - self.last_s.get(address, 0.0) < within_s

    def run(self) -> None:
        """Ask until told to stop."""
        while not self.stopping:
            started_s = time.monotonic()
            with contextlib.suppress(OSError), socket.create_connection(self.target, 5) as connection:
                connection.sendall(REQUEST)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
                if found := ANSWERED_BY.search(answer):
                    self.first_s.setdefault(found[1].decode(), time.monotonic())
                    self.last_s[found[1].decode()] = started_s
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


class Tail(threading.Thread):
    """Follows what HAProxy writes into its log file, and keeps what it says of its servers."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._is_over = threading.Event()
        self.lines: list[tuple[float, str]] = []

    find_s = Log.find_s

    def run(self) -> None:
        """Look every few milliseconds, until told to stop."""
        with self._path.open(encoding="utf-8", errors="replace") as stream:
            while not self._is_over.wait(0.003):
                for line in stream:
                    if line.startswith(_SAYINGS):
                        self.lines.append((time.monotonic(), line))

    def close(self) -> None:
        """Stop."""
        self._is_over.set()
        self.join(10)


class Balancer(NamedTuple):
    """A balancer that runs: its client, its gossip address, and what its Serf agent, resident and HAProxy say."""

    client: Client
    bind: str
    serf_log: Log
    resident_log: Log
    haproxy_log: Tail


@contextlib.contextmanager
def ours(directory: Path, number: int, hints: str, profile: str) -> Iterator[Balancer]:
    """Run a balancer of ours."""
    with running_proxy(directory) as proxy, reading() as log:
        environ = os.environ | proxy.environment | {"SERF_HAPROXY_HINTS": hints}
        argv = [sys.executable, "-m", "serf_haproxy", "run"]
        resident = subprocess.Popen(argv, env=environ, stderr=log.write_fd)
        try:
            with balancer(f"ours{number}", proxy, [profile, f"-event-handler={HANDLER}"], environ, log) as running:
                yield running
        finally:
            resident.terminate()
            resident.wait(20)


@contextlib.contextmanager
def plain(directory: Path, profile: str) -> Iterator[Balancer]:
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
        with balancer("plain", proxy, [profile, f"-event-handler={handler}"], environ, log) as running:
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
    haproxy_log = Tail(Path(proxy.settings.state_dir, "haproxy.log"))
    with reading() as serf_log:
        haproxy_log.start()
        agent = subprocess.Popen(argv, env=environ, stdout=serf_log.write_fd, stderr=serf_log.write_fd)
        info = ["serf", "info", f"-rpc-addr={host}:{port}"]
        client = Client(proxy.settings.frontend_bind)
        try:
            wait_for(lambda: subprocess.run(info, capture_output=True, check=False).returncode == 0, name)
            client.start()
            yield Balancer(client, bind, serf_log, resident_log, haproxy_log)
            client.stopping = True
            client.join(10)
        finally:
            haproxy_log.close()
            agent.kill()
            agent.wait(10)


class Guest(NamedTuple):
    """A node that joins: its name, what its join names, and the options of its Serf agent."""

    name: str
    door: str
    options: list[str]


Marks = dict[str, tuple[Log | Tail, str] | None]


class Times:
    """What was measured: of each balancer the seconds of every join and leave, and of ours those of the way."""

    def __init__(self, gap_s: float) -> None:
        self.gap_s = gap_s
        self.joins_s: dict[str, dict[str, list[float]]] = {door: {name: [] for name in BALANCERS} for door in DOORS}
        self.leaves_s: dict[str, list[float]] = {name: [] for name in BALANCERS}
        self.join_way_s: dict[str, list[dict[str, float | None]]] = {door: [] for door in DOORS}
        self.leave_way_s: list[dict[str, float | None]] = []


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    report = Report("time-to-route" if options.profile == "lan" else f"time-to-route-{options.profile}", options)
    profile = f"-profile={options.profile}"
    times = Times(options.gap_s)
    with contextlib.ExitStack() as stack:
        directories = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp"))) for _ in BALANCERS
        ]
        # One backend is always there, so that a leave does not end in 503. They end last, when nobody asks them.
        backends = [Backend(directories[0], f"web{n}", f"127.0.1.{n}", free_port(f"127.0.1.{n}")) for n in (1, 2)]
        for backend in backends:
            stack.callback(backend.end)
        kept, moving = backends
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


def come_and_go(balancers: dict[str, Balancer], guest: Guest, backend: Backend, times: Times) -> None:
    """Let one backend join, and leave again when all balancers have it."""
    address, port = backend.address, backend.port
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
            "the resident logs it": (mine.resident_log, ROUTED),
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
        "the resident logs it": (mine.resident_log, UNROUTED),
    }
    if "ours" in clients:
        times.leave_way_s.append(way(left_s, marks, name, times.leaves_s["ours"][-1]))


def pause(gap_s: float) -> None:
    """Let everything come to rest, for a time that is in step with no timer of Serf's."""
    time.sleep(gap_s * random.uniform(1.0, 1.25))


def way(since_s: float, marks: Marks, name: str, request_s: float) -> dict[str, float | None]:
    """Return how long after a moment each log had a line about a node; where no log can tell, the request's time."""
    way_s: dict[str, float | None] = {}
    for mark, place in marks.items():
        at_s = place[0].find_s(place[1], name, since_s) if place else since_s + request_s
        way_s[mark] = None if at_s is None else at_s - since_s
    return way_s


def tell(report: Report, times: Times) -> None:
    """Print the tables and judge."""
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
    """Return median, 95th percentile and greatest of some times, milliseconds; dashes for none."""
    if not values_s:
        return ("-",) * 3
    return tuple(f"{1000 * percentile(values_s, percent):.0f}" for percent in (50, 95, 100))


def tell_slowest(what: str, ways_s: list[dict[str, float | None]], last: str) -> None:
    """Print where the three slowest spent their time."""
    for way_s in sorted(ways_s, key=lambda way_s: way_s[last] or 0.0)[-3:]:
        shown = (
            f"{mark} {1000 * at_s:.0f} ms" if at_s is not None else f"{mark} never" for mark, at_s in way_s.items()
        )
        print(f"a slow {what}: {', '.join(shown)}")


def judge(report: Report, times: Times) -> None:
    """Hold what was found against the goals, each join by what it named."""
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
    """Say what was found for each way of joining."""
    return ", ".join(f"{value} through {door}" for value, door in zip(values, DOORS, strict=True))


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--joins", type=int, default=50, help="so many through each door")
    parser.add_argument("--gap-s", type=float, default=GAP_S, help="pause after each join and each leave")
    parser.add_argument("--profile", choices=["lan", "wan", "local"], default="lan", help="of every Serf agent")
    main(parser.parse_args())
