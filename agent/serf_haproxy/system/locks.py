"""Locks between processes."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from serf_haproxy.errors import SystemFault
from serf_haproxy.system.files import set_aside

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PID_WIDTH = 10  # digits and blanks, so that no digit of a longer number stays behind


@contextlib.contextmanager
def locked(path: str, timeout_s: float, holder: str, *, is_named: bool = False) -> Iterator[None]:
    """Hold an exclusive lock. Its file stays: removing a lock file would let two holders in.

    Only the file's owner may open it, since anyone who can open it can lock it.

    Args:
        path: The lock file.
        timeout_s: How long to wait for the lock; 0 means not at all.
        holder: The usual holder of this lock, for the error's text.
        is_named: Whether the file says which process holds it, for `read_holder`.

    Raises:
        SystemFault: The file cannot be opened, or another process holds the lock.
    """
    try:
        try:
            fd = os.open(path, _FLAGS, 0o600)
        except IsADirectoryError:
            set_aside(path)
            fd = os.open(path, _FLAGS, 0o600)
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
        if is_named:
            with contextlib.suppress(OSError):  # a full disk
                os.pwrite(fd, f"{os.getpid():<{_PID_WIDTH}}\n".encode(), 0)
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


def read_holder(path: str) -> int | None:
    """Return which process has locked a file that names its holder; None where that cannot be read."""
    try:
        with open(path, "rb") as file:
            return int(file.read(_PID_WIDTH + 1))
    except (OSError, ValueError):
        return None
