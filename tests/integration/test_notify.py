"""What the daemon and the autoscaler tell systemd, read from a real socket in systemd's place."""

import contextlib
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import COMMAND, running_daemon
from serf_haproxy.serf.wake import wake

SCALED = """
[shop]
routes = ["shop.example.com"]
server_maxconn = 20
scale = {executor = "command", max = 2, list = ["true"], start = ["true", "{slot}"], stop = ["true", "{slot}"]}
"""


class Manager:
    """A socket in systemd's place.

    Attributes:
        environment: What systemd gives to a service.
        messages: The datagrams so far.
    """

    def __init__(self, path: Path, watchdog_us: int = 400_000) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(watchdog_us)}
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def has(self, text: str, first: int = 0) -> bool:
        """Return whether a message from number `first` on contains a text."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.messages.append(self._socket.recv(65536).decode())
        return any(text in message for message in self.messages[first:])

    def wait(self, text: str, first: int = 0) -> None:
        """Wait for such a message."""
        wait_for(lambda: self.has(text, first), lambda: f"{text} in {self.messages[-20:]}")


@contextlib.contextmanager
def managing(directory: Path, watchdog_us: int = 400_000) -> Iterator[Manager]:
    """Provide a manager for the duration of a block."""
    manager = Manager(directory / "notify", watchdog_us)
    try:
        yield manager
    finally:
        manager.close()


def test_the_daemon_is_ready_after_the_first_confirmed_pass_and_alive_until_it_stops(
    proxy: Proxy, tmp_path: Path
) -> None:
    """READY, one true line of STATUS, WATCHDOG again and again, and STOPPING."""
    with managing(tmp_path) as manager:
        with running_daemon(proxy, **manager.environment):
            manager.wait("READY=1")
            manager.wait("STATUS=UNCHANGED HAProxy runs what it should; no connection to Serf")
            for _ in range(3):
                manager.wait("WATCHDOG=1", len(manager.messages))
            before = len(manager.messages)
            proxy.record("web1", 8001)
            wake(proxy.settings.wake_fifo)
            manager.wait("STATUS=APPLIED servers changed: +web1", before)
        manager.wait("STOPPING=1")
    assert sum("READY=1" in message for message in manager.messages) == 1


def test_a_daemon_whose_haproxy_is_down_is_not_ready_until_it_runs(proxy: Proxy, tmp_path: Path) -> None:
    """While no pass is confirmed, the start is extended and STATUS says why."""
    proxy.stop()
    with managing(tmp_path) as manager, running_daemon(proxy, **manager.environment):
        manager.wait("STATUS=UNCONFIRMED")
        assert manager.has("EXTEND_TIMEOUT_USEC=")
        assert not manager.has("READY=1")
        assert not manager.has("WATCHDOG=1")
        proxy.start()
        manager.wait("READY=1")


def test_a_hung_pass_feeds_no_watchdog(proxy: Proxy, tmp_path: Path) -> None:
    """The beats come from the loop itself: while a program that a pass waits for hangs, there is none."""
    marker, gate, program = tmp_path / "hung", tmp_path / "gate", tmp_path / "haproxy"
    os.mkfifo(gate)
    program.write_text(
        f'#!/bin/sh\n[ ! -e {tmp_path}/armed ] || {{ : > {marker}; read -r _ < {gate}; }}\nexec haproxy "$@"\n'
    )
    program.chmod(0o755)
    environment = {"SERF_HAPROXY_HAPROXY_BIN": str(program), "SERF_HAPROXY_CHECK_TIMEOUT_S": "600"}
    with managing(tmp_path) as manager, running_daemon(proxy, **manager.environment, **environment):
        manager.wait("WATCHDOG=1")
        (tmp_path / "armed").touch()
        proxy.record("web1", 8001)
        wake(proxy.settings.wake_fifo)
        wait_for(marker.exists, "the check hangs")
        manager.has("")
        before = len(manager.messages)
        with contextlib.suppress(AssertionError):  # twice the time after which systemd would kill it
            wait_for(lambda: manager.has("WATCHDOG=1", before), "a beat", 0.8)
        assert not manager.has("WATCHDOG=1", before)
        (tmp_path / "armed").unlink()
        gate.write_text("go on\n")
        manager.wait("WATCHDOG=1", before)


def test_children_of_the_daemon_do_not_have_the_socket(proxy: Proxy, tmp_path: Path) -> None:
    """Neither HAProxy's trial nor the web process knows the socket; the web process is part of STATUS."""
    seen, program = tmp_path / "seen", tmp_path / "haproxy"
    program.write_text(f'#!/bin/sh\nenv > {seen}\nexec haproxy "$@"\n')
    program.chmod(0o755)
    web = f"127.0.0.1:{free_port()}"
    environment = {"SERF_HAPROXY_HAPROXY_BIN": str(program), "SERF_HAPROXY_WEB_BIND": web}
    with managing(tmp_path) as manager, running_daemon(proxy, **manager.environment, **environment) as daemon:
        proxy.record("web1", 8001)
        wake(proxy.settings.wake_fifo)
        wait_for(seen.exists, "a trial")

        def find_web() -> list[psutil.Process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                return [one for one in psutil.Process(daemon.pid).children() if one.cmdline()[-1:] == ["web"]]
            return []

        wait_for(find_web, "the web process")
        environments = [seen.read_text(), str(find_web()[0].environ())]
        before = len(manager.messages)
        find_web()[0].kill()
        manager.wait("the web process does not run", before)
    assert all("SERF_HAPROXY_WEB_BIND" in text for text in environments)
    assert [text for text in environments if "NOTIFY_SOCKET" in text or "WATCHDOG" in text] == []


def test_the_autoscaler_is_alive_with_and_without_services_that_scale(proxy: Proxy, tmp_path: Path) -> None:
    """It is ready at once, tells how it is, and beats in both of its loops."""
    with managing(tmp_path, 8_000_000) as manager:
        environment = os.environ | proxy.environment | manager.environment
        with subprocess.Popen([*COMMAND, "autoscale"], env=environment) as process:
            try:
                manager.wait("READY=1")
                manager.wait("STATUS=no service scales")
                manager.wait("WATCHDOG=1")
                before = len(manager.messages)
                Path(proxy.settings.services_file).write_text(SCALED)
                proxy.run_pass()
                manager.wait("STATUS=the name of this balancer is not known yet", before)
                manager.wait("WATCHDOG=1", before)
                process.terminate()
                manager.wait("STOPPING=1")
            finally:
                process.kill()


def test_lines_for_the_journal_have_levels(proxy: Proxy) -> None:
    """Where standard error is the journal's socket each line begins with its level, else none does."""
    ours, theirs = socket.socketpair()
    status = os.fstat(theirs.fileno())
    assert stat.S_ISSOCK(status.st_mode)
    journal = f"{status.st_dev}:{status.st_ino}"
    with ours, theirs:
        process = subprocess.Popen(
            [*COMMAND, "run"], env=os.environ | proxy.environment | {"JOURNAL_STREAM": journal}, stderr=theirs
        )
        theirs.close()
        try:
            assert ours.makefile("rb").readline().startswith(b"<6>level=INFO msg=")
        finally:
            process.terminate()
            process.wait(30)
