"""serf-haproxy and its peers: time to route, lost requests, CPU for a change, memory; in one run on one machine.

Usage: .venv/bin/python tests/benchmarks/peers/compare.py [--changes 100] [--rate 50] [--peers NAME ...] [--results DIR]

Each peer has a Serf agent with its handler, a proxy, and a client with new connections at a constant rate. All hear the
same changes at the same time: a node joins, and leaves again. A node that leaves goes on serving for some seconds, as
an application does that a container engine stops, so its last request is at most that late. A request is lost when its
answer is not 200 from a node, within ten seconds. The CPU for a change is that of all processes of a peer during the
changes, less that of a quiet time under the same load, by changes. README.md in this directory lists the
configurations.
"""

import argparse
import contextlib
import getpass
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
sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil
from applications import Application, accepts
from measure import Report, make_parser, memory_mib, percentile, tree_cpu_s
from membership import HANDLER
from visitor import Client

import workers
from integration.debian import unpack_all
from integration.proxy import free_port, running_proxy, wait_for

HERE = Path(__file__).parent
GAP_S = 2.0  # after each change: longer than a Serf agent collects events
LATE_S = 30.0  # a change that a peer has not followed by then
KEPT_COUNT = 2
PACKAGES = {"caddy": "usr/bin", "dnsmasq-base": "usr/sbin", "nginx": "usr/sbin"}


class Peer(NamedTuple):
    """A running peer: its client, the gossip address of its Serf agent, and its processes without their children."""

    client: Client
    bind: str
    pids: list[int]

    def cpu_s(self) -> float:
        """Return the CPU time of all its processes so far, seconds."""
        return sum(map(tree_cpu_s, self.pids))

    def memory_mib(self) -> float:
        """Return its share of the memory (PSS), MiB."""
        processes = [psutil.Process(pid) for pid in self.pids]
        every = [*processes, *(child for process in processes for child in process.children(recursive=True))]
        found = 0.0
        for process in every:
            with contextlib.suppress(psutil.NoSuchProcess, OSError, KeyError, IndexError):
                found += memory_mib(process.pid)[1]
        return found


class Place(NamedTuple):
    """Where a peer runs: its directory, what its files are filled in with, and its environment."""

    directory: Path
    words: dict[str, str]
    environ: dict[str, str]
    rate: float

    def fill_in(self, name: str) -> Path:
        """Write a file of this directory for the peer; return its path."""
        text = (HERE / name).read_text()
        for word, value in self.words.items():
            text = text.replace(f"@{word}@", value)
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    @contextlib.contextmanager
    def running(self, *argv: str | Path) -> Iterator[int]:
        """Run a program for the length of the block; yield its process id."""
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(argv, env=self.environ, stdout=log, stderr=log)
        try:
            yield process.pid
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait(10)

    @contextlib.contextmanager
    def following(self, name: str, handler: str | Path, pids: list[int], port: int) -> Iterator[Peer]:
        """Run the Serf agent of a peer whose proxy runs, and its client."""
        bind = f"127.0.0.1:{free_port()}"
        argv = ["serf", "agent", f"-node={name}", f"-bind={bind}", f"-rpc-addr={self.words['RPC']}"]
        argv += ["-tag", "role=balancer", f"-event-handler={handler}"]
        rpc_port = int(self.words["RPC"].rpartition(":")[2])
        with self.running(*argv) as agent:
            wait_for(lambda: accepts("127.0.0.1", rpc_port), f"the Serf agent of {name}")
            client = Client(port, self.rate)
            yield Peer(client, bind, [*pids, agent])
            client.close()


@contextlib.contextmanager
def run_ours(place: Place) -> Iterator[Peer]:
    """Run serf-haproxy."""
    with running_proxy(place.directory, SERF_HAPROXY_RPC_ADDR=place.words["RPC"]) as proxy:
        assert proxy.process
        mine = place._replace(environ=place.environ | proxy.environment)
        port = int(proxy.settings.frontend_bind.rpartition(":")[2])
        with (
            mine.running(sys.executable, "-m", "serf_haproxy", "run") as daemon,
            mine.following("ours", HANDLER, [proxy.process.pid, daemon], port) as peer,
        ):
            yield peer


@contextlib.contextmanager
def run_shell(place: Place) -> Iterator[Peer]:
    """Run HAProxy with a handler that renders and reloads."""
    config = place.fill_in("shell.cfg")
    Path(f"{config}.base").write_text(config.read_text())
    handler = place.fill_in("shell_event")
    with place.running("haproxy", "-W", "-db", "-f", config) as pid:
        (place.directory / "pid").write_text(str(pid))
        with place.following("shell", handler, [pid], int(place.words["PORT"])) as peer:
            yield peer


@contextlib.contextmanager
def running_dns(place: Place) -> Iterator[int]:
    """Run dnsmasq for the length of the block; yield its process id."""
    (place.directory / "hosts").touch()
    with place.running("dnsmasq", "--keep-in-foreground", f"--conf-file={place.fill_in('dnsmasq.conf')}") as pid:
        (place.directory / "dnsmasq.pid").write_text(str(pid))
        wait_for(lambda: accepts("127.0.0.1", int(place.words["DNS"])), "dnsmasq")
        yield pid


@contextlib.contextmanager
def run_haproxy_dns(place: Place) -> Iterator[Peer]:
    """Run HAProxy with servers from the DNS."""
    handler = place.fill_in("dns_event")
    with (
        running_dns(place) as dns,
        place.running("haproxy", "-W", "-db", "-f", place.fill_in("dns.cfg")) as pid,
        place.following("haproxy-dns", handler, [pid, dns], int(place.words["PORT"])) as peer,
    ):
        yield peer


@contextlib.contextmanager
def run_caddy(place: Place) -> Iterator[Peer]:
    """Run Caddy with upstreams from the DNS."""
    handler = place.fill_in("dns_event")
    config = place.fill_in("Caddyfile")
    mine = place._replace(environ=place.environ | {"HOME": str(place.directory)})
    with (
        running_dns(place) as dns,
        mine.running("caddy", "run", "--config", config, "--adapter", "caddyfile") as pid,
        place.following("caddy", handler, [pid, dns], int(place.words["PORT"])) as peer,
    ):
        yield peer


@contextlib.contextmanager
def run_nginx(place: Place) -> Iterator[Peer]:
    """Run nginx with a handler that renders and reloads."""
    (place.directory / "nodes").write_text("server 127.0.0.1:9 down;\n")
    handler = place.fill_in("nginx_event")
    with (
        place.running("nginx", "-c", place.fill_in("nginx.conf")) as pid,
        place.following("nginx", handler, [pid], int(place.words["PORT"])) as peer,
    ):
        yield peer


PEERS: dict[str, Callable[[Place], contextlib.AbstractContextManager[Peer]]] = {
    "serf-haproxy": run_ours,
    "shell handler, reload": run_shell,
    "server-template, DNS": run_haproxy_dns,
    "Caddy, DNS": run_caddy,
    "nginx, reload": run_nginx,
}


class Node:
    """A node: its application, and its Serf agent once it joins."""

    def __init__(self, directory: Path, number: int, port: int) -> None:
        self.address = f"127.0.{2 + number // 200}.{1 + number % 200}"
        self._application = Application(directory, f"web{number}", self.address, port)
        self._name = f"web{number}"
        self._agent: subprocess.Popen[bytes] | None = None

    def join(self, binds: list[str], port: int) -> float:
        """Start the Serf agent; return when."""
        argv = ["serf", "agent", f"-node={self._name}", f"-bind={self.address}:{free_port(self.address)}"]
        argv += [f"-rpc-addr={self.address}:{free_port(self.address)}", "-tag", "role=web", "-tag", f"port={port}"]
        began_s = time.monotonic()
        argv += [f"-join={bind}" for bind in binds]
        self._agent = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return began_s

    def leave(self, serve_s: float) -> float:
        """Let the Serf agent leave, and stop the application some seconds later; return when the leave began."""
        assert self._agent
        began_s = time.monotonic()
        self._agent.send_signal(signal.SIGINT)
        time.sleep(serve_s)
        self._application.stop()
        return began_s

    def end(self) -> None:
        """Kill what is left."""
        if self._agent:
            self._agent.kill()
            self._agent.wait(10)
        self._application.end()


class Found(NamedTuple):
    """What was found of a peer: times of joins and leaves, seconds, and CPU seconds of a change."""

    joins_s: list[float]
    leaves_s: list[float]
    cpu_s: float


def come_and_go(
    peers: dict[str, Peer], node: Node, port: int, options: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Let a node join and leave; return by peer from join to first request, and from leave to last request, seconds."""
    joined_s = node.join([peer.bind for peer in peers.values()], port)
    with contextlib.suppress(AssertionError):  # one that has not followed by then counts with that time
        wait_for(lambda: all(node.address in peer.client.first_s for peer in peers.values()), "all have it", LATE_S)
    time.sleep(GAP_S)
    left_s = node.leave(options.serve_s)
    time.sleep(GAP_S)
    return {
        name: (
            peer.client.first_s.get(node.address, joined_s + LATE_S) - joined_s,
            max(0.0, peer.client.last_s.get(node.address, left_s) - left_s),
        )
        for name, peer in peers.items()
    }


def compare(peers: dict[str, Peer], directory: Path, port: int, options: argparse.Namespace) -> dict[str, Found]:
    """Make the changes, and a quiet time as long; return what was found of each peer."""
    began_s = time.monotonic()
    at_s = {name: peer.cpu_s() for name, peer in peers.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    starting_s = 0.0
    for number in range(options.changes // 2):
        before_s = time.monotonic()
        node = Node(directory, 10 + number, port)
        starting_s += time.monotonic() - before_s
        try:
            for name, found in come_and_go(peers, node, port, options).items():
                times[name].append(found)
        finally:
            node.end()
    span_s = time.monotonic() - began_s
    used_s = {name: peer.cpu_s() - at_s[name] for name, peer in peers.items()}
    quiet_s = min(span_s, options.quiet_s)
    at_s = {name: peer.cpu_s() for name, peer in peers.items()}
    time.sleep(quiet_s)
    return {
        name: Found(
            *map(list, zip(*times[name], strict=True)),
            (used_s[name] - (peer.cpu_s() - at_s[name]) * span_s / quiet_s) / options.changes,
        )
        for name, peer in peers.items()
    }


def make_place(directory: Path, programs: Path, app_port: int, rate: float) -> Place:
    """Return a place for a peer, in a directory of its own."""
    directory.mkdir()
    words = {"DIR": str(directory), "PORT": str(free_port()), "DNS": str(free_port()), "APP": str(app_port)}
    words |= {"RPC": f"127.0.0.1:{free_port()}", "USER": getpass.getuser()}
    places = [str(programs / package / where) for package, where in PACKAGES.items()]
    libraries = [str(path) for path in programs.glob("*/usr/lib/*-linux-gnu")]
    environ = os.environ | {"PATH": os.pathsep.join([*places, os.environ["PATH"]])}
    return Place(directory, words, environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}, rate)


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("peers", options)
    port = free_port("0.0.0.0")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp")))
        os.environ.setdefault(workers.RUN_DIR, str(directory))
        for package in PACKAGES:
            (directory / package).mkdir()
            unpack_all(directory / package, package)
        kept = [Node(directory, number, port) for number in range(KEPT_COUNT)]
        for node in kept:
            stack.callback(node.end)
        peers = {}
        for number, name in enumerate(options.peers):
            place = make_place(directory / f"peer{number}", directory, port, options.rate)
            peers[name] = stack.enter_context(PEERS[name](place))
        for node in kept:
            node.join([peer.bind for peer in peers.values()], port)
        time.sleep(GAP_S)
        for peer in peers.values():
            peer.client.start()
        addresses = {node.address for node in kept}
        wait_for(
            lambda: all(addresses <= peer.client.first_s.keys() for peer in peers.values()),
            lambda: f"all serve: { {name: (peer.client.lost, peer.client.first_s) for name, peer in peers.items()} }",
        )
        for peer in peers.values():
            peer.client.lost.clear()
            peer.client.count = 0
        tell(report, peers, compare(peers, directory, port, options), options.changes)
    report.write()


def tell(report: Report, peers: dict[str, Peer], found: dict[str, Found], change_count: int) -> None:
    """Report what was found."""
    rows = []
    for name, peer in peers.items():
        times = [f"{1000 * percentile(found[name].joins_s, percent):,.0f}" for percent in (50, 95)]
        times += [f"{1000 * percentile(found[name].leaves_s, percent):,.0f}" for percent in (50, 95)]
        lost = f"{sum(peer.client.lost.values()):,}"
        cpu = f"{1000 * found[name].cpu_s:.0f}" if found[name].cpu_s > 0 else "-"  # less than the load varies
        rows.append(
            (
                name,
                *times,
                f"{peer.client.count:,}",
                lost,
                cpu,
                f"{peer.memory_mib():.0f}",
            )
        )
    header = (
        "peer",
        "join: p50, ms",
        "p95, ms",
        "leave: p50, ms",
        "p95, ms",
        "requests",
        "lost",
        "CPU of a change, ms",
        "MiB",
    )
    report.add_table("peers", header, rows)
    lost = sum(peers["serf-haproxy"].client.lost.values()) if "serf-haproxy" in peers else 0
    report.add_goal(f"serf-haproxy loses no request in {change_count} changes", f"{lost}", lost == 0)
    report.add_data(found={name: each._asdict() for name, each in found.items()})
    report.add_data(lost={name: dict(peer.client.lost) for name, peer in peers.items()})


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--changes", type=int, default=100, help="joins and leaves together (default: 100)")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second to each peer (default: 50)")
    parser.add_argument(
        "--serve-s", type=float, default=2.0, help="how long a node serves after it leaves (default: 2)"
    )
    parser.add_argument("--quiet-s", type=float, default=60.0, help="the quiet time, at most (default: 60)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    main(parser.parse_args())
