"""Durable files: written to a temporary file, flushed, then renamed into place."""

import contextlib
import errno
import itertools
import logging
import os
import re
import stat
import time
from collections.abc import Callable

from serf_haproxy.errors import SystemFault

log = logging.getLogger("serf-haproxy")

WRITTEN_BYTES = 2**20  # a file that an operator writes is surely shorter: a longer one is another one by mistake
MOST_BYTES = 2**27  # a configuration or a state of 100,000 servers is a third as long
_READ_BYTES = 2**20  # the kernel refuses to fill some files of /proc in larger pieces
_RANDOM_BYTES = 8
_SETTLED_NS = 1_000_000_000  # the clock of the files ticks every few milliseconds: a younger one may change unseen
_SUFFIX = ".tmp"
_TEMPORARY = re.compile(rf"(.+)\.[0-9a-f]{{{2 * _RANDOM_BYTES}}}\.tmp", re.DOTALL)


def write_durably(
    path: str, text: str, mode: int = 0o644, is_exact: bool = False, owner: tuple[int, int] | None = None
) -> None:
    """Replace a file so that a reader, or a crash, finds either the old content or the new.

    The temporary file beside it has a name that cannot be guessed and is made new: what another user has put there
    (a link, a FIFO) is never opened. `remove_temporaries` removes those that a crash has left.

    Args:
        path: The file.
        text: Its content.
        mode: Its permissions.
        is_exact: Whether the file has just this mode; otherwise the umask reduces it.
        owner: The user and the group to which it belongs from the first moment; None for the caller's.

    Raises:
        SystemFault: The file cannot be written; the previous one is untouched.
    """

    def prepare(fd: int) -> None:
        if is_exact:
            os.fchmod(fd, mode)
        if owner:
            os.fchown(fd, *owner)

    try:
        _replace(path, text, mode, prepare)
    except OSError as error:
        raise SystemFault(f"cannot write {path}: {error.strerror}; the previous file is untouched") from error


def write_quickly(path: str, text: str) -> None:
    """Replace a file that is made anew after a crash: a reader finds the old content or the new, nothing is flushed.

    Raises:
        SystemFault: The file cannot be written; the previous one is untouched.
    """
    try:
        _replace(path, text, is_flushed=False)
    except OSError as error:
        raise SystemFault(f"cannot write {path}: {error.strerror}") from error


def _replace(
    path: str,
    text: str,
    mode: int = 0o644,
    prepare: Callable[[int], None] | None = None,
    *,
    is_flushed: bool = True,
) -> None:
    temporary = f"{path}.{os.urandom(_RANDOM_BYTES).hex()}{_SUFFIX}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            if prepare:
                prepare(fd)
            file.write(text)
            if is_flushed:
                file.flush()
                os.fsync(fd)
        (rename_durably if is_flushed else os.replace)(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def remove_temporaries(*paths: str) -> None:
    """Remove temporary files of `write_durably` that a crash has left beside files of one directory.

    The caller holds the lock of the files.
    """
    directory = os.path.dirname(paths[0])
    names = {os.path.basename(path) for path in paths}
    with contextlib.suppress(OSError):
        for found in os.listdir(directory):
            if found.endswith(_SUFFIX) and (match := _TEMPORARY.fullmatch(found)) and match[1] in names:
                os.unlink(os.path.join(directory, found))


def read_mode(path: str) -> int | None:
    """Return the permissions of a regular file, None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return stat.S_IMODE(found.st_mode) & 0o777 if stat.S_ISREG(found.st_mode) else None


def find_stamp(path: str) -> tuple[int, ...] | None:
    """Return what is different after each change of a file; None where there is no file, or it changed just now."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    is_settled = time.time_ns() - found.st_ctime_ns > _SETTLED_NS
    return (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns) if is_settled else None


def rename_durably(source: str, target: str) -> None:
    """Rename a flushed file and flush the directory; raises OSError."""
    os.replace(source, target)
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def set_aside(path: str, has_copy: bool = False, is_right: Callable[[int], bool] = stat.S_ISREG) -> bool:
    """Rename what is in the place of a file and is none; return whether something was, which is logged.

    A directory is taken only as such: what another process has put there meanwhile stays.

    Args:
        path: The file.
        has_copy: Whether the caller writes it again then, for the log.
        is_right: Whether a mode is that of the right kind.
    """
    try:
        if is_right(os.stat(path, follow_symlinks=is_right is not stat.S_ISFIFO).st_mode):  # our FIFO is never a link
            return False
    except FileNotFoundError:  # nothing, or a link that leads nowhere: a new file replaces it
        return False
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link in a circle
            return False
    aside = next(name for count in itertools.count(1) if not os.path.lexists(name := f"{path}.aside-{count}"))
    is_directory = os.path.isdir(path) and not os.path.islink(path)
    try:
        os.rename(f"{path}/" if is_directory else path, aside)
    except OSError:  # such as a mount: the next read says what is wrong
        return False
    kind = {stat.S_ISREG: "file", stat.S_ISDIR: "directory", stat.S_ISFIFO: "FIFO"}[is_right]
    then = "it is written again from memory" if has_copy else "what should be there counts as missing"
    log.warning("%s", f"{path} was no {kind}: that is {aside} now, and {then}")
    return True


def open_regular(path: str) -> int:
    """Return a descriptor for reading a file; a FIFO or a device at its path is not waited for.

    Raises:
        OSError: There is no file, or it must not be read.
        SystemFault: It is not a regular file.
    """
    fault = SystemFault(f"cannot read {path}: it is not a regular file; replace it by one")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):  # a socket, a link in a circle
            raise fault from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise fault
    return fd


def read_text(path: str, most_bytes: int = MOST_BYTES) -> str | None:
    """Return the content of a file, None when it does not exist.

    Args:
        path: The file.
        most_bytes: Its greatest size.

    Raises:
        SystemFault: The file exists and cannot be read, is too large, or is not a regular file.
    """
    try:
        with open(open_regular(path), "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size > most_bytes:
                raise SystemFault(f"cannot read {path}: it is longer than {most_bytes} bytes")
            parts, left_bytes = [], most_bytes
            while left_bytes > 0 and (part := file.read(min(_READ_BYTES, left_bytes))):
                parts.append(part)
                left_bytes -= len(part)
            return b"".join(parts).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SystemFault(f"cannot read {path}: {error.strerror}") from error
