"""A real HAProxy in master-worker mode on loopback, and settings with which passes use it."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import probe
import workers
from serf_haproxy.control import directories, outcome, reconcile
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.settings import Settings, load_settings, variable

_PORTS = workers.free_ports()


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port of this worker that is free at this moment."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((address, port))
            return port
    raise AssertionError("free_ports never ends")


def wait_for(condition: Callable[[], object], what: str | Callable[[], str], timeout_s: float = 60.0) -> None:
    """Wait until a condition holds; after timeout_s fail with `what`, or with its result if it is a function.

    The pause between two checks of the condition grows with the time that a check takes. Tests that run side by side
    wait most of the time; with short pauses, an expensive check such as `docker exec` would use all processors.
    """
    deadline = time.monotonic() + timeout_s
    looked_s = time.monotonic()
    while not condition():
        now_s = time.monotonic()
        if now_s > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what if isinstance(what, str) else what()}")
        time.sleep(min(max(0.02, 2 * (now_s - looked_s)), 0.5))
        looked_s = time.monotonic()


def make_environment(directory: Path) -> dict[str, str]:
    """Return SERF_HAPROXY_* variables for a balancer whose files are in a directory."""
    paths = {
        "nodes_dir": "nodes",
        "wake_fifo": "wake",
        "state_dir": "state",
        "config_path": "haproxy.cfg",
        "services_file": "services.toml",
        "certificate_copies_dir": "copies",
        "master_socket": "master.sock",
        "runtime_socket": "admin.sock",
        "service_dir": "service/haproxy",
    }
    return {variable(name): str(directory / path) for name, path in paths.items()} | {
        variable("rpc_addr"): f"127.0.0.1:{free_port()}",
        variable("frontend_bind"): f"127.0.0.1:{free_port()}",
        variable("stats_bind"): f"127.0.0.1:{free_port()}",
        variable("reload_timeout_s"): "5",
        variable("failed_grace_s"): "0",
    }


class Proxy:
    """A HAProxy and its settings; its first configuration has no servers."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.environment = make_environment(directory) | environment
        self.settings: Settings = load_settings(self.environment)
        self.process: subprocess.Popen[bytes] | None = None
        directories.prepare_directories(self.settings)
        Path(self.settings.config_path).write_text(probe.render(self.settings, ()).text)

    def start(self, *launcher: str) -> None:
        """Start HAProxy, by a program that executes it if one is given, and wait for its worker."""
        master = f"{self.settings.master_socket},mode,660,level,operator"  # as in the s6 tree
        argv = [*launcher, "haproxy", "-W", "-db", "-S", master, "-f", self.settings.config_path]
        with open(os.path.join(self.settings.state_dir, "haproxy.log"), "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: probe.read_description(self.settings) is not None, "HAProxy answers")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop HAProxy and wait until it has ended."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, number)
        if self.process:
            self.process.wait(20)

    def record(
        self, name: str, port: int = 9, address: str = "127.0.0.1", status: str = "alive", **tags: object
    ) -> None:
        """Write a node file as the handler does."""
        pairs = tuple(sorted(f"{key}={value}" for key, value in ({"port": port} | tags).items()))
        record(self.settings.nodes_dir, status, Member(name, address, "", pairs))

    def run_pass(self, **changes: object) -> outcome.Outcome:
        """Run one pass without a roster."""
        return reconcile.reconcile(self.settings.replace(**changes), lambda: None)

    def reload_count(self) -> int:
        """Return how often the master has reloaded."""
        for _ in range(200):
            with contextlib.suppress(HaproxyFault):
                return probe.read_account(self.settings).reload_count
            time.sleep(0.02)
        raise AssertionError("the master does not answer")

    def wait_up(self, *names: str) -> None:
        """Wait until HAProxy sees these servers up."""

        def are_up() -> bool:
            servers = probe.read_servers(self.settings) or {}
            return all(name in servers and servers[name].status == "UP" for name in names)

        wait_for(are_up, lambda: f"{names} are up: {probe.read_servers(self.settings)}")

    def servers(self) -> set[str]:
        """Return the names of the servers in the running HAProxy."""
        return set(probe.read_servers(self.settings) or ())


@contextlib.contextmanager
def running_proxy(directory: Path, **environment: str) -> Iterator[Proxy]:
    """Run a HAProxy in a directory for the duration of a block."""
    proxy = Proxy(directory, **environment)
    with _holding(proxy.settings.rpc_addr):
        try:
            proxy.start()
            yield proxy
        finally:
            proxy.stop()


@contextlib.contextmanager
def _holding(address: tuple[str, int]) -> Iterator[None]:
    """Keep a port, on which nothing listens yet, from tests of other runs for the duration of a block.

    Otherwise another run's Serf may take it, and this test's daemon follow that one's members. Our own Serf can listen
    there all the same: both sockets have SO_REUSEADDR, and this one does not listen.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # the test itself has a listener there
            held.bind(address)
        yield
