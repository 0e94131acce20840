"""The time from a backend's join to its first request, and from its leave to the last one sent to it.

Ours, with and without hints, beside a plain `serf agent -event-handler` with a shell handler that renders and reloads.

Usage: .venv/bin/python tests/benchmarks/time_to_route.py [JOINS] [--json PATH]

All three run at the same time on one machine and hear the same joins; a client of each asks without a pause, each time
on a new connection. The application of every backend answers before its Serf agent starts.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import print_table

from integration.agents import run_serf
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_load import applications

GAP_S = 3.2  # more than Serf's coalescing and a reload: every join stands for itself

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


@contextlib.contextmanager
def ours(directory: Path, number: int, hints: str) -> Iterator[tuple[Client, str]]:
    """Run a balancer of ours; give its client and its gossip address."""
    with running_proxy(directory) as proxy:
        environ = os.environ | proxy.environment | {"SERF_HAPROXY_HINTS": hints}
        resident = subprocess.Popen(
            [sys.executable, "-m", "serf_haproxy", "run"], env=environ, stderr=subprocess.DEVNULL
        )
        handler = Path(__file__).parents[2] / "handlers" / "member_event"
        host, port = proxy.settings.rpc_addr
        options = [f"-event-handler={handler}"]
        with balancer(f"ours{number}", host, port, options, environ) as bind:
            yield from serve(proxy, bind)
        resident.terminate()
        resident.wait(20)


@contextlib.contextmanager
def plain(directory: Path) -> Iterator[tuple[Client, str]]:
    """Run a HAProxy that a shell handler rewrites and reloads."""
    with running_proxy(directory) as proxy:
        config = Path(proxy.settings.config_path)
        base = config.read_text().replace("default_backend nodes", "default_backend nodes_of_shell")
        Path(f"{config}.base").write_text(base)
        Path(f"{config}.pid").write_text(str(proxy.process.pid))
        handler = directory / "handler"
        handler.write_text(SHELL_HANDLER)
        handler.chmod(0o755)
        host, port = proxy.settings.rpc_addr
        environ = os.environ | {"CONFIG": str(config), "RPC": f"{host}:{port}"}
        with balancer("plain", host, port, [f"-event-handler={handler}"], environ) as bind:
            yield from serve(proxy, bind)


@contextlib.contextmanager
def balancer(name: str, host: str, port: int, options: list[str], environ: dict[str, str]) -> Iterator[str]:
    """Run a balancer's Serf agent; give its gossip address."""
    bind = f"{host}:{free_port(host)}"
    argv = [
        "serf",
        "agent",
        f"-node={name}",
        f"-bind={bind}",
        f"-rpc-addr={host}:{port}",
        "-tag",
        "role=balancer",
        *options,
    ]
    agent = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    info = ["serf", "info", f"-rpc-addr={host}:{port}"]
    try:
        wait_for(lambda: subprocess.run(info, capture_output=True, check=False).returncode == 0, name)
        yield bind
    finally:
        agent.kill()
        agent.wait(10)


def serve(proxy: Proxy, bind: str) -> Iterator[tuple[Client, str]]:
    """Run a client of a frontend as long as its balancer is used."""
    client = Client(proxy.settings.frontend_bind)
    client.start()
    yield client, bind
    client.stopping = True
    client.join(10)


def main(join_count: int, json_path: str | None) -> None:
    """Measure and print the table."""
    routes: dict[str, list[float]] = {"ours": [], "ours, no hints": [], "shell handler": []}
    leaves: dict[str, list[float]] = {name: [] for name in routes}
    with contextlib.ExitStack() as stack:
        directories = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp"))) for _ in routes]
        pairs = [
            stack.enter_context(ours(directories[0], 1, "on")),
            stack.enter_context(ours(directories[1], 2, "off")),
            stack.enter_context(plain(directories[2])),
        ]
        clients = dict(zip(routes, (client for client, _ in pairs), strict=True))
        binds = [bind for _, bind in pairs]
        joined = tuple(f"-join={bind}" for bind in binds)
        with applications(2) as ports:
            # One backend is always there, so that a leave does not end in 503.
            (kept, kept_port), (address, port) = ports.items()
            options = (*joined, "-event-handler=true")
            stack.enter_context(
                run_serf("kept", kept, free_port(kept), "role=web", f"port={kept_port}", options=options)
            )
            time.sleep(5)
            for number in range(join_count):
                for client in clients.values():
                    client.first_s.pop(address, None)
                started_s = time.monotonic()
                rpc_port = free_port(address)
                argv = ["serf", "agent", f"-node=web{number}", f"-bind={address}:{free_port(address)}"]
                argv += [f"-rpc-addr={address}:{rpc_port}", "-tag", "role=web", "-tag", f"port={port}", *joined]
                agent = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                wait_for(lambda: all(address in client.first_s for client in clients.values()), f"join {number}")
                for name, client in clients.items():
                    routes[name].append(client.first_s[address] - started_s)
                time.sleep(GAP_S)
                left_s = time.monotonic()
                agent.send_signal(signal.SIGINT)
                agent.wait(20)
                time.sleep(GAP_S)
                for name, client in clients.items():
                    leaves[name].append(max(0.0, client.last_s[address] - left_s))
    rows = [
        (name, what, *(f"{1000 * value:.0f}" for value in percentiles(values)))
        for what, table in (("join to first request", routes), ("leave to last request", leaves))
        for name, values in table.items()
    ]
    print_table(("balancer", "what", "p50, ms", "p95, ms", "max, ms"), rows)
    ratio = percentiles(routes["shell handler"])[0] / percentiles(routes["ours"])[0]
    print(f"\nshell handler / ours, p50 of joins: {ratio:.1f}")
    if json_path:
        Path(json_path).write_text(json.dumps({"routes_s": routes, "leaves_s": leaves}, indent=1) + "\n")


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """Return the median, the 95th percentile and the maximum."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))], ordered[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("joins", type=int, nargs="?", default=20)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    main(arguments.joins, arguments.json)
