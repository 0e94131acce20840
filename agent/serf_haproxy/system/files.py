"""Files that must survive a power cut: written beside, flushed, then renamed into place; and a lock."""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from serf_haproxy.errors import SystemFault


def write_durably(path: str, text: str, mode: int = 0o644) -> None:
    """Replace a file by rename after flushing it, so that a reader or a crash finds the old or the new one.

    Raises:
        SystemFault: It cannot be written; the file before is untouched.
    """
    temporary = f"{path}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        rename_durably(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise SystemFault(f"cannot write {path}: {error.strerror}; the file before is untouched") from error


def rename_durably(source: str, target: str) -> None:
    """Rename a flushed file and flush the directory; raises OSError."""
    os.replace(source, target)
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_text(path: str) -> str | None:
    """Return the content of a file; None when it is absent.

    Raises:
        SystemFault: It is there and cannot be read.
    """
    try:
        # Never wait on a FIFO or a device that stands in a file's place.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="utf-8", errors="surrogateescape", newline="") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SystemFault(f"cannot read {path}: it is no regular file; put one there")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SystemFault(f"cannot read {path}: {error.strerror}") from error


@contextlib.contextmanager
def locked(path: str, timeout_s: float, holder: str) -> Iterator[None]:
    """Hold an exclusive lock; the file stays, because removing a lock file lets two holders in.

    Args:
        path: The lock file.
        timeout_s: How long to wait for it; 0 means not at all.
        holder: What holds such a lock, for the error's text.

    Raises:
        SystemFault: The file cannot be opened, or another process holds the lock.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SystemFault(f"cannot open {path}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise SystemFault(f"{path} is locked: {holder} is at work; try again later") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def is_locked(path: str) -> bool | None:
    """Tell whether somebody holds a lock, without making its file; None when we may not look."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
