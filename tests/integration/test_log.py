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
from integration.proxy import Proxy, wait_for
from integration.test_daemon import COMMAND
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
        lost_count = sum(map(int, re.findall("msg='(\\d+) lines are lost: nobody took them'", log)))
        assert lost_count > 0
        assert kept_count + lost_count == FLOOD_COUNT + 2
