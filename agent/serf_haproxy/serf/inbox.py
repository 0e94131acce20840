"""The inbox: where the handler puts the payload of a user event, for the daemon to judge. Cheap to import.

Every member of the gossip can send such events, so there are few files and each is small. What comes while the inbox is
full is lost: the daemon asks other balancers for what it has missed.
"""

import errno
import os
import stat
import time

from serf_haproxy.errors import InputError, SystemFault

EVENT = "lb-order"  # the name of the user event
MOST_BYTES = 512  # Serf's limit for name and payload
MOST_FILES = 64

_WRITING_S = 10  # a temporary file older than this belongs to a handler that died
_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def put(inbox_dir: str, payload: bytes) -> None:
    """Put a payload into the inbox.

    Raises:
        InputError: It is larger than Serf's limit.
        SystemFault: The inbox is full, or cannot be written.
    """
    if len(payload) > MOST_BYTES:
        raise InputError(f"{EVENT}: more than {MOST_BYTES} bytes; Serf never sends that much")
    try:
        if len(os.listdir(inbox_dir)) >= MOST_FILES:
            raise SystemFault(
                f"{inbox_dir} is full; the order is lost here, and the daemon asks other balancers for it"
            )
        name = f"{time.time_ns():020d}-{os.urandom(4).hex()}"
        temporary = os.path.join(inbox_dir, f".{name}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            if os.write(fd, payload) != len(payload):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
        os.replace(temporary, os.path.join(inbox_dir, name))
    except OSError as error:
        remedy = "start the daemon, which makes it" if error.errno == errno.ENOENT else "give it to this user"
        raise SystemFault(f"cannot write into {inbox_dir}: {error.strerror}; {remedy}") from error


def take(inbox_dir: str) -> list[bytes]:
    """Return the payloads in the inbox, the oldest first, and remove them; none where it cannot be read."""
    try:
        names = sorted(os.listdir(inbox_dir))[: 2 * MOST_FILES]
    except OSError:
        return []
    payloads = []
    for name in names:
        path = os.path.join(inbox_dir, name)
        try:
            if name.startswith(".") and abs(time.time() - os.lstat(path).st_mtime) < _WRITING_S:
                continue
            if not name.startswith("."):
                payloads += _read(path)
            os.unlink(path)
        except OSError:
            pass  # a directory, or another user's file: it counts against the limit, and harms nothing else
    return payloads


def _read(path: str) -> list[bytes]:
    """Return the payload of a file, or none."""
    fd = os.open(path, _READ_ONLY)
    try:
        content = os.read(fd, MOST_BYTES + 2) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    return [content] if 0 < len(content) <= MOST_BYTES + 1 else []
