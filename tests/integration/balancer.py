"""A whole balancer for tests: a real HAProxy, a real Serf agent, two applications, and the daemon's lock."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from conftest import StartSerf
from fakes.web import Web, answering
from integration.proxy import Proxy, wait_for
from serf_haproxy.control.edges import find_serf
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.control.report import Report, read_report
from serf_haproxy.control.state import State
from serf_haproxy.serf.client import Client
from serf_haproxy.system.locks import locked


class Balancer(Proxy):
    """A HAProxy with a Serf agent.

    Attributes:
        serf: The Serf agent's process id.
        webs: The application of each of the nodes web1 and web2.
        ports: Its port.
    """

    serf: int
    webs: dict[str, Web]
    ports: dict[str, int]

    def hear(self) -> None:
        """Make a pass that asks Serf, and wait until the servers are up."""
        client = Client(find_serf(self.settings), has_hints=False)
        try:
            reconcile(self.settings, client.ask)
        finally:
            client.close()

    def read(self) -> Report:
        """Return the report."""
        return read_report(self.settings)


@contextlib.contextmanager
def running_balancer(start_serf: StartSerf) -> Iterator[Balancer]:
    """Run a balancer whose two nodes serve. Serf knows only the balancer: the node files are written by the test."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp")))
        serf = start_serf("lb1", "-tag=role=balancer")
        stack.callback(serf.process.kill)  # else it would run to the end of all tests, beside a hundred others
        balancer = Balancer(directory, SERF_HAPROXY_RPC_ADDR="{}:{}".format(*serf.rpc))
        balancer.serf = serf.process.pid
        balancer.webs = {name: stack.enter_context(answering()) for name in ("web1", "web2")}
        balancer.ports = {name: web.port for name, web in balancer.webs.items()}
        stack.callback(balancer.stop, signal.SIGKILL)
        balancer.start()
        stack.enter_context(locked(State(balancer.settings.state_dir).daemon_lock_path, 5, "a daemon"))
        balancer.hear()
        for name, port in balancer.ports.items():
            balancer.record(name, port)
        balancer.run_pass()
        balancer.wait_up("web1", "web2")
        yield balancer


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes for the duration of a block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: all(map(_is_stopped, pids)), "all threads have stopped")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def list_haproxy(balancer: Proxy) -> list[int]:
    """Return the process ids of HAProxy's master and its workers."""
    assert balancer.process
    return [balancer.process.pid, *(child.pid for child in psutil.Process(balancer.process.pid).children())]
