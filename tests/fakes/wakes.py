"""The daemon's end of the wake FIFO, for tests of what writes to it."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def hearing(path: Path) -> Iterator[Callable[[], bytes]]:
    """Make a FIFO and yield a function that returns the bytes written to it since its last call."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def read() -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(fd, 4096)
        return b""

    yield read
    os.close(fd)
