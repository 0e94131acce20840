"""Locks between processes."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from serf_haproxy.errors import SystemFault


@contextlib.contextmanager
def locked(path: str, timeout_s: float, holder: str) -> Iterator[None]:
    """Hold an exclusive lock. Its file stays: removing a lock file would let two holders in.

    Only the file's owner may open it, since anyone who can open it can lock it.

    Args:
        path: The lock file.
        timeout_s: How long to wait for the lock; 0 means not at all.
        holder: The usual holder of this lock, for the error's text.

    Raises:
        SystemFault: The file cannot be opened, or another process holds the lock.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SystemFault(f"cannot open {path}: {error.strerror}") from error
    try:
        with contextlib.suppress(OSError):  # another user's file, such as root's
            os.fchmod(fd, 0o600)  # the previous release made it 0644
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise SystemFault(f"{path} is locked: {holder} is running; try again later") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def is_locked(path: str) -> bool | None:
    """Return whether a process holds a lock, without making its file; None when this user may not look."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
