"""The wake FIFO, both ends: handlers write to it, the daemon reads. Cheap to import."""

import errno
import os
import stat

from serf_haproxy.errors import SystemFault

MEMBER_WORD, ORDER_WORD = b"\n", b"o"


def open_fifo(path: str) -> int:
    """Open the daemon's end of the FIFO, and make the FIFO where it is missing.

    It is opened for writing too, so that it never reports the end of the last handler.

    Raises:
        SystemFault: It cannot be made, or the path is not a FIFO.
    """
    try:
        try:
            os.mkfifo(path)
            os.chmod(path, 0o660)  # whatever the umask: Serf's user may share only our group
        except FileExistsError:
            pass
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFault(f"cannot open the FIFO {path}: {os.strerror(error.errno or errno.EIO)}") from error
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise SystemFault(f"{path} is not a FIFO; remove it and start the daemon again")
    return fd


def is_open_at(fd: int, path: str) -> bool:
    """Return whether a descriptor is of the FIFO that is at this path now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def drain(fd: int) -> bytes:
    """Read all that is in a non-blocking pipe or FIFO; return the end of it, at most 64 KiB."""
    data = b""
    try:
        while read := os.read(fd, 65536):
            data = read
    except BlockingIOError:
        pass
    return data


def wake(path: str, word: bytes = MEMBER_WORD) -> bool:
    """Wake the daemon; never wait for it.

    Args:
        path: The FIFO.
        word: What has come: MEMBER_WORD for a node file, ORDER_WORD for an order.

    Returns:
        Whether the daemon is there to be woken. A full FIFO counts: it has been woken already.

    Raises:
        SystemFault: The path exists and is not a FIFO that this user may write to.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False  # the daemon does not run; the node files wait for it
        remedy = "give this user the right to write there" if error.errno == errno.EACCES else "see the error"
        raise SystemFault(
            f"cannot open {path}: {error.strerror}; {remedy}; the next resync heals what was missed"
        ) from error
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise SystemFault(f"{path} is not a FIFO; remove it and restart the daemon, which makes it")
        os.write(fd, word)
    except BlockingIOError:
        pass
    except BrokenPipeError:
        return False  # the daemon closed its end just now
    finally:
        os.close(fd)
    return True
