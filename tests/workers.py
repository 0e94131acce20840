"""Ports, addresses and locks for tests that run side by side.

`make test` runs tests in several processes, the workers of pytest-xdist. Each worker has its own ports and addresses;
all workers share a directory. A run without workers counts as worker 0.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

RUN_DIR = "TEST_RUN_DIR"  # the environment variable with the directory that the workers share
NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

# All below 32768: from there on Linux takes ports for outgoing connections.
_FREE_PORT_COUNT = 500
_LAB_PORT_COUNT = 600
_FREE_BASE = 10000 + _FREE_PORT_COUNT * (NUMBER % 20)
LAB_BASE = 20000 + _LAB_PORT_COUNT * (NUMBER % 20)  # the tests of the lab number the first 100 ports themselves


def free_ports() -> Iterator[int]:
    """Yield this worker's ports for single listeners, endlessly, from a port that depends on the process id."""
    number = os.getpid() * 7
    while True:
        yield _FREE_BASE + number % _FREE_PORT_COUNT
        number += 1


def lab_bases() -> Iterator[int]:
    """Yield the first of ten free ports for each lab, endlessly; labs of other test runs keep their ports."""
    while True:
        for base in range(LAB_BASE + 100, LAB_BASE + _LAB_PORT_COUNT, 10):
            if all(_is_free(base + offset) for offset in range(10)):
                yield base


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock that all workers of this test run share, for the duration of a block."""
    with open(run_dir() / f"{name}.lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_dir() -> Path:
    """Return the directory that all workers of this test run share; the controller removes it when the run ends."""
    return Path(os.environ[RUN_DIR])


def _is_free(port: int) -> bool:
    """Return whether no address of this machine has a listener on a TCP port."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("", port))
        return True
    return False
