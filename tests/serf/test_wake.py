"""The wake FIFO, with a real FIFO."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.wake import wake

pytestmark = pytest.mark.usefixtures("time_limit")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Return a FIFO without a reader."""
    path = tmp_path / "wake"
    os.mkfifo(path)
    return path


@pytest.fixture
def reader_fd(fifo: Path) -> Iterator[int]:
    """Yield the reading end of the FIFO."""
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    yield fd
    with contextlib.suppress(OSError):
        os.close(fd)


def test_wake_reaches_the_reader(fifo: Path, reader_fd: int) -> None:
    """Each wake writes one byte to the FIFO."""
    assert wake(str(fifo))
    assert os.read(reader_fd, 100) == b"\n"


def test_wake_without_a_reader_does_not_wait(fifo: Path, tmp_path: Path) -> None:
    """Without a reader or a FIFO, `wake` returns False and creates nothing."""
    assert not wake(str(fifo))
    assert not wake(str(tmp_path / "missing"))
    assert os.listdir(tmp_path) == ["wake"]


@pytest.mark.usefixtures("reader_fd")
def test_wake_of_a_full_fifo_does_not_wait(fifo: Path) -> None:
    """A full FIFO counts as a delivered wake."""
    writer_fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer_fd, b"\n" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer_fd, b"\n")
    assert wake(str(fifo))
    os.close(writer_fd)


def test_wake_of_a_reader_that_closes(fifo: Path, reader_fd: int) -> None:
    """When the daemon ends between open and write, `wake` returns False without an error."""

    def close_reader(_frame: FrameType, happening: str, what: object) -> None:
        if happening == "c_call" and what is os.write:
            os.close(reader_fd)

    before = sys.getprofile()
    sys.setprofile(close_reader)
    try:
        assert not wake(str(fifo))
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_wake_of_another_file_is_an_error(fifo: Path, tmp_path: Path, kind: str) -> None:
    """A path that is not a FIFO is not written to, and the error names it."""
    other = tmp_path / "other"
    if kind == "file":
        other.write_text("precious")
    elif kind == "directory":
        other.mkdir()
    else:
        other.symlink_to(fifo)
    with pytest.raises(SystemFault, match=re.escape(str(other))):
        wake(str(other))
    if kind == "file":
        assert other.read_text() == "precious"


def test_many_wakes_at_once_are_all_delivered(fifo: Path, reader_fd: int) -> None:
    """Concurrent wakes of several handlers are all delivered."""
    threads = [threading.Thread(target=wake, args=(str(fifo),)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.read(reader_fd, 100) == b"\n" * 20
