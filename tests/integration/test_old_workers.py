"""Old workers: clients with idle connections from before a reload notice nothing of what happens afterwards."""

import contextlib
import grp
import http.client
import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import probe
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_load import start_application, wait_application
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.haproxy.runtime import ServerStatus
from serf_haproxy.serf.events import ALIVE, Member
from serf_haproxy.serf.roster import Roster

CLIENT_COUNT = 10


class Fleet:
    """Web applications that are members, by the number in their name and address."""

    def __init__(self, proxy: Proxy, stack: contextlib.ExitStack) -> None:
        self._proxy = proxy
        self._stack = stack
        self._running: dict[int, tuple[subprocess.Popen[bytes], int]] = {}

    def start(self, *numbers: int) -> None:
        """Start applications, let them join, and wait until HAProxy uses them."""
        for number in numbers:
            port = free_port()
            process = start_application(f"127.0.1.{number}", port)
            self._stack.callback(process.wait, 20)
            self._stack.callback(process.kill)
            self._running[number] = process, port
        for number in numbers:
            _, port = self._running[number]
            wait_application(f"127.0.1.{number}", port)
            self._proxy.record(f"web{number}", port, f"127.0.1.{number}")
        assert self._proxy.run_pass().verdict is Verdict.APPLIED
        names = {f"web{number}" for number in self._running}
        wait_for(lambda: {name for name, row in self._views().items() if row.status == "UP"} == names, "UP")

    def stop(self, number: int) -> None:
        """Let an application leave, and kill it when HAProxy does not have it any more."""
        process, port = self._running.pop(number)
        self._proxy.record(f"web{number}", port, f"127.0.1.{number}", status="left")
        wait_for(lambda: self._proxy.run_pass(drain_timeout_s=0.0) and f"web{number}" not in self._views(), "gone")
        process.kill()
        process.wait(20)

    def roster(self) -> Roster:
        """Return what Serf would say."""
        members = {
            f"web{number}": (ALIVE, Member(f"web{number}", f"127.0.1.{number}", "", (f"port={port}",)))
            for number, (_, port) in self._running.items()
        }
        return Roster(time.time_ns(), "lb1", members)

    def _views(self) -> dict[str, ServerStatus]:
        return probe.read_servers(self._proxy.settings) or {}


@pytest.fixture
def fleet(proxy: Proxy) -> Iterator[Fleet]:
    """Yield a fleet without members."""
    with contextlib.ExitStack() as stack:
        yield Fleet(proxy, stack)


@contextlib.contextmanager
def idle_clients(proxy: Proxy) -> Iterator[list[http.client.HTTPConnection]]:
    """Open keep-alive connections and make one request on each."""
    host, _, port = proxy.settings.frontend_bind.rpartition(":")
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(CLIENT_COUNT):
            clients.append(http.client.HTTPConnection(host, int(port), timeout=20))
            stack.callback(clients[-1].close)
        assert [ask(client)[0] for client in clients] == [200] * CLIENT_COUNT
        yield clients


def ask(client: http.client.HTTPConnection) -> tuple[int, str | None]:
    """Make a request on a connection; return the status and the address of the server."""
    client.request("GET", "/")
    response = client.getresponse()
    response.read()
    return response.status, response.headers["X-Backend-IP"]


def read_log(proxy: Proxy) -> str:
    return Path(proxy.settings.state_dir, "haproxy.log").read_text()


def reload(proxy: Proxy) -> None:
    balance = "leastconn" if "balance roundrobin" in (probe.read_live(proxy.settings) or "") else "roundrobin"
    proxy.settings = proxy.settings.replace(balance=balance)
    assert proxy.run_pass().verdict is Verdict.RELOADED


@pytest.mark.parametrize("reload_count", [1, 2])
def test_all_servers_are_replaced_after_a_reload(proxy: Proxy, fleet: Fleet, reload_count: int) -> None:
    """Idle clients of an old worker get answers of the new servers when all of its own have gone."""
    fleet.start(1, 2)
    with idle_clients(proxy) as clients:
        for _ in range(reload_count):
            reload(proxy)
        for number in (1, 2):
            fleet.start(number + 2)
            fleet.stop(number)
        answers = [ask(client) for client in clients]
    assert [status for status, _ in answers] == [200] * CLIENT_COUNT
    assert {address for _, address in answers} == {"127.0.1.3", "127.0.1.4"}


def test_a_reload_by_a_daemon_that_died_is_handed_over_later(proxy: Proxy, fleet: Fleet) -> None:
    """An old worker that was not told of its successor is told by a later pass that asks Serf."""
    fleet.start(1)
    with idle_clients(proxy) as clients:
        assert make_edges(proxy.settings).master.reload() is None
        assert reconcile(proxy.settings, fleet.roster).verdict is Verdict.UNCHANGED
        fleet.start(2)
        fleet.stop(1)
        assert [ask(client) for client in clients] == [(200, "127.0.1.2")] * CLIENT_COUNT


def test_idle_clients_are_answered_when_haproxy_stops(proxy: Proxy, fleet: Fleet) -> None:
    """A worker that stops for good has no successor: it uses its own servers to the end."""
    fleet.start(1)
    with idle_clients(proxy) as clients:
        assert proxy.process
        os.kill(proxy.process.pid, signal.SIGUSR1)
        wait_for(lambda: "Proxy web stopped" in read_log(proxy), "HAProxy stops")
        assert [ask(client) for client in clients] == [(200, "127.0.1.1")] * CLIENT_COUNT
    proxy.process.wait(20)


def test_the_address_of_the_client_is_kept(proxy: Proxy, fleet: Fleet) -> None:
    """The newest worker sees the client and the port that it used, not the old worker."""
    fleet.start(1)
    with idle_clients(proxy) as clients:
        reload(proxy)
        host, port = clients[0].sock.getsockname()
        assert ask(clients[0]) == (200, "127.0.1.1")

    def list_ways() -> list[str]:
        return sorted(re.findall(rf"^{host}:{port} .* (?:web|handover) (\w+/\w+) ", read_log(proxy), re.MULTILINE))

    # A worker writes its line after the client has its answer.
    wait_for(lambda: len(list_ways()) == 3, lambda: str(list_ways()))
    assert list_ways() == ["nodes/web1", "nodes/web1", "successor/newest"]


def test_workers_in_a_chroot_hand_over_too(short_dir: Path) -> None:
    """Workers with a user, a group and a chroot of their own answer as others do, before and after a reload."""
    chroot = short_dir / "chroot"
    chroot.mkdir()
    own = {"USER": "nobody", "GROUP": "nogroup", "CHROOT": str(chroot)}
    environment = {f"SERF_HAPROXY_HAPROXY_{name}": value for name, value in own.items()}
    with running_proxy(short_dir, **environment) as proxy, contextlib.ExitStack() as stack:
        fleet = Fleet(proxy, stack)
        fleet.start(1, 2)
        with idle_clients(proxy) as clients:
            reload(proxy)
            account = make_edges(proxy.settings).master.read_account()
            workers = psutil.Process(account.pid).children()
            assert len(workers) == 2
            for worker in workers:
                with contextlib.suppress(PermissionError):  # in a container root may not look at another user's process
                    assert os.readlink(f"/proc/{worker.pid}/root") == str(chroot)
                assert worker.uids().effective == pwd.getpwnam("nobody").pw_uid
                assert worker.gids().effective == grp.getgrnam("nogroup").gr_gid
            fleet.start(3)
            fleet.stop(1)
            fleet.stop(2)
            assert {ask(client) for client in clients} == {(200, "127.0.1.3")}
