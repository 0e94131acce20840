"""Logs that cannot be written: a full disk or a hanging logger stops neither the daemon nor another service."""

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.disks import Disk, private_mounts
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import COMMAND
from integration.test_load import start_application, wait_application
from serf_haproxy.serf.wake import wake

LOGGER = Path(__file__).parents[2] / "s6" / ".common" / "log"
FLOOD_COUNT = 800  # lines of more than 100 bytes: more than a pipe holds, and less than the disk


class Logged:
    """A daemon whose standard error is a pipe to the logger of the s6 tree.

    Attributes:
        proxy: The daemon's HAProxy.
        logger: The logger's process.
    """

    def __init__(self, proxy: Proxy, log_dir: Path, logger: "subprocess.Popen[bytes]", readable: int) -> None:
        self.proxy = proxy
        self.logger = logger
        self._log_dir = log_dir
        self._readable = readable

    def read(self) -> str:
        """Return the content of the log."""
        return (self._log_dir / "daemon" / "current").read_text()

    def flood(self) -> None:
        """Make the daemon log many lines: one for each of many quarantined nodes."""
        for number in range(FLOOD_COUNT):
            self.proxy.record(f"flood-{number:04}-{'x' * 60}", 0)
        wake(self.proxy.settings.wake_fifo)

    def serve(self, name: str) -> None:
        """Let a node join and wait until it is served, which shows that the daemon runs passes."""
        self.proxy.record(name, 8001)
        wake(self.proxy.settings.wake_fifo)
        wait_for(lambda: name in self.proxy.servers(), f"{name} is served")

    def pending_bytes(self) -> int:
        """Return the number of unread bytes in the pipe."""
        return int(struct.unpack("i", fcntl.ioctl(self._readable, termios.FIONREAD, b"\0" * 4))[0])


def test_a_join_is_one_line_of_haproxys_log(proxy: Proxy, tmp_path: Path) -> None:
    """A server that joins makes one line, that it is up; one that fails makes one line, that it is down."""
    log_path = Path(proxy.settings.state_dir, "haproxy.log")
    port = free_port()
    before_bytes = log_path.stat().st_size
    application = start_application("127.0.0.1", port)
    try:
        wait_application("127.0.0.1", port)
        proxy.record("web1", port)
        proxy.run_pass()
        wait_for(lambda: "web1 is UP, reason" in log_path.read_text(), "web1 is up")
    finally:
        application.kill()
        application.wait(20)
    wait_for(lambda: "web1 is DOWN, reason" in log_path.read_text(), "web1 is down")
    proxy.stop()
    script = LOGGER.parents[1] / "haproxy" / "log" / "run"
    said = log_path.read_bytes()[before_bytes:]
    assert said.count(b"web1") > 10
    subprocess.run([script], cwd=script.parent, input=said, env=os.environ | {"LOG_DIR": str(tmp_path)}, check=True)
    lines = [line for line in (tmp_path / "haproxy" / "current").read_text().splitlines() if "web1" in line]
    assert [re.sub(r".* : |, reason.*", "", line) for line in lines] == [
        "Server nodes/web1 is UP",
        "Server nodes/web1 is DOWN",
    ]


@contextlib.contextmanager
def logged_daemon(proxy: Proxy, log_dir: Path) -> Iterator[Logged]:
    """Run the daemon and its logger for the duration of a block."""
    readable, writable = os.pipe()
    environ = os.environ | proxy.environment | {"LOG_DIR": str(log_dir)}
    try:
        logger = subprocess.Popen([LOGGER, "daemon"], stdin=readable, env=environ)
        daemon = subprocess.Popen([*COMMAND, "run"], stderr=writable, env=environ)
        os.close(writable)
        wait_for(lambda: os.path.exists(proxy.settings.wake_fifo), "the daemon listens")
        yield Logged(proxy, log_dir, logger, readable)
        daemon.terminate()
        assert daemon.wait(30) == 0
        assert logger.wait(30) == 0
    finally:
        os.close(readable)
        for process in (daemon, logger):
            process.kill()
            process.wait(30)


@pytest.fixture
def log_disk(short_dir: Path) -> Iterator[Disk]:
    """Yield a small disk for the logs."""
    with private_mounts():
        disk = Disk(short_dir / "log")
        try:
            yield disk
        finally:
            disk.remove()


def test_a_full_log_disk_loses_no_line_and_stops_no_pass(log_disk: Disk, proxy: Proxy) -> None:
    """While the log disk is full, passes run; the lines are in the log when the disk has space again."""
    with logged_daemon(proxy, log_disk.directory) as logged:
        logged.serve("web1")
        log_disk.fill()
        logged.flood()
        logged.serve("web2")
        logged.serve("web3")
        log_disk.clear()
        wait_for(lambda: "+web3" in logged.read(), "everything is in the log")
        assert logged.read().count("is quarantined") == FLOOD_COUNT
        assert "lines are lost" not in logged.read()


def test_a_log_that_cannot_be_written_has_a_memory_limit(log_disk: Disk) -> None:
    """With a full disk, the logger keeps some megabytes of lines and ends when there are more; s6 restarts it."""
    log_disk.fill()
    environ = os.environ | {"LOG_DIR": str(log_disk.directory)}
    lines = b"a line that cannot be written here\n" * 2_000_000
    ended = subprocess.run([LOGGER, "daemon"], input=lines, env=environ, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 111
    assert b"Cannot allocate memory" in ended.stderr


def test_a_hanging_logger_stops_no_pass(short_dir: Path, proxy: Proxy) -> None:
    """While the logger is stopped, passes run; afterwards the log has the number of lost lines and continues."""
    with logged_daemon(proxy, short_dir / "log") as logged:
        logged.serve("web1")
        logged.logger.send_signal(signal.SIGSTOP)
        try:
            logged.flood()
            logged.serve("web2")
            logged.serve("web3")
        finally:
            logged.logger.send_signal(signal.SIGCONT)
        wait_for(lambda: not logged.pending_bytes(), "the logger has caught up")
        logged.serve("web4")
        wait_for(lambda: "+web4" in logged.read(), "the log continues")
        log = logged.read()
        kept_count = sum(log.count(words) for words in ("is quarantined", "+web2", "+web3"))
        lost_count = sum(map(int, re.findall('msg="(\\d+) lines are lost: the log was not read"', log)))
        assert lost_count > 0
        assert kept_count + lost_count == FLOOD_COUNT + 2
