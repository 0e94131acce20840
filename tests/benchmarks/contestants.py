"""The balancers that time_to_route.py compares, with a client of each and the logs of its processes."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from membership import HANDLER

from integration.proxy import Proxy, free_port, running_proxy, wait_for

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
ANSWERED_BY = re.compile(rb"\r\nx-backend-ip: *([0-9.]+)\r\n", re.IGNORECASE)
_SAYINGS = ("Server nodes/", "Health check for server nodes/")

# A common handler: a line for each server in the order of `serf members`, then a reload of the master.
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
    """A client that makes requests without a pause and records the first and the last answer of each application."""

    def __init__(self, frontend: str) -> None:
        super().__init__(daemon=True)
        host, _, port = frontend.rpartition(":")
        self.target = host, int(port)
        self.first_s: dict[str, float] = {}
        self.last_s: dict[str, float] = {}
        self.stopping = False

    def has_met(self, address: str, within_s: float) -> bool:
        """Return whether an application has answered within this time before now."""
        return time.monotonic() - self.last_s.get(address, 0.0) < within_s

    def run(self) -> None:
        """Make requests until `stopping` is set."""
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
    """Reads the output of a process and records the time of each line."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._read_fd, self.write_fd = os.pipe()
        self.lines: list[tuple[float, str]] = []

    def run(self) -> None:
        """Read until all writers have ended."""
        with os.fdopen(self._read_fd, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                self.lines.append((time.monotonic(), line.rstrip("\n")))

    def close(self) -> None:
        """Close this end of the pipe and wait for the end of the other writers."""
        os.close(self.write_fd)
        self.join(10)

    def find_s(self, pattern: str, name: str, since_s: float) -> float | None:
        """Return the time of the first line that matches a pattern; None when no line does."""
        wanted = re.compile(pattern.replace("{name}", name).replace(r"\{name\}", name))
        return next((at_s for at_s, line in list(self.lines) if at_s >= since_s and wanted.search(line)), None)


class Tail(threading.Thread):
    """Follows the log file of HAProxy and keeps its lines about servers."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._is_over = threading.Event()
        self.lines: list[tuple[float, str]] = []

    find_s = Log.find_s

    def run(self) -> None:
        """Read every few milliseconds, until it is closed."""
        with self._path.open(encoding="utf-8", errors="replace") as stream:
            while not self._is_over.wait(0.003):
                for line in stream:
                    if line.startswith(_SAYINGS):
                        self.lines.append((time.monotonic(), line))

    def close(self) -> None:
        """Stop reading."""
        self._is_over.set()
        self.join(10)


class Balancer(NamedTuple):
    """A running balancer: its client, its gossip address, and the logs of its Serf agent, daemon and HAProxy."""

    client: Client
    bind: str
    serf_log: Log
    daemon_log: Log
    haproxy_log: Tail


@contextlib.contextmanager
def ours(directory: Path, number: int, hints: str, profile: str) -> Iterator[Balancer]:
    """Run HAProxy, the daemon and a Serf agent with the handler."""
    with running_proxy(directory) as proxy, reading() as log:
        environ = os.environ | proxy.environment | {"SERF_HAPROXY_HINTS": hints}
        argv = [sys.executable, "-m", "serf_haproxy", "run"]
        daemon = subprocess.Popen(argv, env=environ, stderr=log.write_fd)
        try:
            with balancer(f"ours{number}", proxy, [profile, f"-event-handler={HANDLER}"], environ, log) as running:
                yield running
        finally:
            daemon.terminate()
            daemon.wait(20)


@contextlib.contextmanager
def plain(directory: Path, profile: str) -> Iterator[Balancer]:
    """Run HAProxy and a Serf agent with a shell handler that renders and reloads."""
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
    """Read a log for the length of the block."""
    log = Log()
    log.start()
    try:
        yield log
    finally:
        log.close()


@contextlib.contextmanager
def balancer(
    name: str, proxy: Proxy, options: list[str], environ: dict[str, str], daemon_log: Log
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
            yield Balancer(client, bind, serf_log, daemon_log, haproxy_log)
            client.stopping = True
            client.join(10)
        finally:
            haproxy_log.close()
            agent.kill()
            agent.wait(10)
