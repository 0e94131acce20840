"""Logs that nobody takes: a full disk and a logger that hangs hinder neither the resident nor another service."""

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
from integration.test_resident import COMMAND
from serf_haproxy.serf.wake import wake

LOGGER = Path(__file__).parents[2] / "s6" / ".common" / "log"
FLOOD_COUNT = 800  # lines of more than 100 bytes: more than a pipe holds, and less than the disk


class Logged:
    """A resident behind a pipe to the logger of the s6 tree.

    Attributes:
        proxy: Its HAProxy.
        logger: The logger's process.
    """

    def __init__(self, proxy: Proxy, log_dir: Path, logger: "subprocess.Popen[bytes]", readable: int) -> None:
        self.proxy = proxy
        self.logger = logger
        self._log_dir = log_dir
        self._readable = readable

    def read(self) -> str:
        """Return what is in the log."""
        return (self._log_dir / "daemon" / "current").read_text()

    def flood(self) -> None:
        """Give the resident a lot to say: a line for each of many nodes that are quarantined."""
        for number in range(FLOOD_COUNT):
            self.proxy.record(f"flood-{number:04}-{'x' * 60}", 0)
        wake(self.proxy.settings.wake_fifo)

    def serve(self, name: str) -> None:
        """Have a node join and wait until it is served: the resident makes passes."""
        self.proxy.record(name, 8001)
        wake(self.proxy.settings.wake_fifo)
        wait_for(lambda: name in self.proxy.servers(), f"{name} is served")

    def pending_bytes(self) -> int:
        """Return how much waits in the pipe."""
        return int(struct.unpack("i", fcntl.ioctl(self._readable, termios.FIONREAD, b"\0" * 4))[0])


@contextlib.contextmanager
def logged_resident(proxy: Proxy, log_dir: Path) -> Iterator[Logged]:
    """Run the resident behind the logger for the length of a block."""
    readable, writable = os.pipe()
    environ = os.environ | proxy.environment | {"LOG_DIR": str(log_dir)}
    try:
        logger = subprocess.Popen([LOGGER, "daemon"], stdin=readable, env=environ)
        resident = subprocess.Popen([*COMMAND, "run"], stderr=writable, env=environ)
        os.close(writable)
        wait_for(lambda: os.path.exists(proxy.settings.wake_fifo), "the resident listens")
        yield Logged(proxy, log_dir, logger, readable)
        resident.terminate()
        assert resident.wait(30) == 0
        assert logger.wait(30) == 0
    finally:
        os.close(readable)
        for process in (resident, logger):
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
    """While nothing can be logged, nodes are served; what was said meanwhile is in the log once there is room."""
    with logged_resident(proxy, log_disk.directory) as logged:
        logged.serve("web1")
        log_disk.fill()
        logged.flood()
        logged.serve("web2")
        logged.serve("web3")
        log_disk.clear()
        wait_for(lambda: "+web3" in logged.read(), "everything is in the log")
        assert logged.read().count("is quarantined") == FLOOD_COUNT
        assert "lines are lost" not in logged.read()


def test_a_log_that_cannot_be_written_takes_no_memory_without_end(log_disk: Disk) -> None:
    """Behind a full disk the logger keeps some megabytes of lines; with more it ends, and s6 starts it again."""
    log_disk.fill()
    environ = os.environ | {"LOG_DIR": str(log_disk.directory)}
    lines = b"a line that nobody can write down\n" * 2_000_000
    ended = subprocess.run([LOGGER, "daemon"], input=lines, env=environ, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 111
    assert b"Cannot allocate memory" in ended.stderr


def test_a_logger_that_hangs_stops_no_pass(short_dir: Path, proxy: Proxy) -> None:
    """While the logger is stopped, nodes are served; then the log tells how many lines are lost, and goes on."""
    with logged_resident(proxy, short_dir / "log") as logged:
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
        wait_for(lambda: "+web4" in logged.read(), "the log goes on")
        log = logged.read()
        kept_count = sum(log.count(words) for words in ("is quarantined", "+web2", "+web3"))
        lost_count = sum(map(int, re.findall("msg='(\\d+) lines are lost: nobody took them'", log)))
        assert lost_count > 0
        assert kept_count + lost_count == FLOOD_COUNT + 2
