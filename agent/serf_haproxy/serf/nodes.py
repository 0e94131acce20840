"""The node directory: where handlers write down what Serf said. Cheap to import.

One file per node, named like the node, written by rename, so that a reader sees the old line or the new one and
never half of one. There is no fsync: `load` reports a file torn by a power cut, and the roster heals it.
"""

import errno
import os
import stat
import time

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.serf.events import LINE_BYTES, Member, format_line, name_fault, parse_line, say_the_same
from serf_haproxy.serf.printing import quoted

_TEMPORARY_PREFIX = "."  # no node name starts with a dot
_RANDOM_BYTES = 8
_HEX_DIGITS = frozenset("0123456789abcdef")
_WRITING_S = 10  # a temporary file older than this belongs to a handler that died
_SETTLED_NS = 1_000_000_000  # the clock of the files ticks every few milliseconds: a younger one may change unseen
_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never wait on a foreign FIFO


class NodeFile:
    """One readable node file.

    Attributes:
        status: One of `events.STATUSES`.
        member: The member that the file describes.
        mtime_ns: When the file was written, nanoseconds since the epoch on the kernel's clock for files.
        stamp: Inode and change time; None for a file so young that they cannot show a further change.
        line: The content of the file.
    """

    __slots__ = ("line", "member", "mtime_ns", "stamp", "status")

    def __init__(
        self, status: str, member: Member, mtime_ns: int, stamp: tuple[int, int] | None = None, line: str = ""
    ) -> None:
        self.status = status
        self.member = member
        self.mtime_ns = mtime_ns
        self.stamp = stamp
        self.line = line or format_line(status, member)


class Stray:
    """A file in the node directory that is not a node file, and why."""

    __slots__ = ("name", "reason")

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason


def record(nodes_dir: str, status: str, member: Member) -> bool:
    """Write down what an event says of a member, unless its node file says the same; return whether it changed.

    Args:
        nodes_dir: The node directory.
        status: One of `events.STATUSES`.
        member: What to write. A file that has its tags from the roster may say the same in other bytes.

    Raises:
        SystemFault: The file cannot be written; the one before is untouched.
    """
    return _record(nodes_dir, format_line(status, member), member.name)[0]


def correct(nodes_dir: str, status: str, member: Member) -> NodeFile:
    """Write down what the roster says of a member; return its node file. Arguments and errors are those of `record`."""
    line = format_line(status, member)
    return NodeFile(status, member, _record(nodes_dir, line, member.name, is_exact=True)[1], None, line)


def forget(nodes_dir: str, name: str) -> bool:
    """Remove a node file; return whether it existed.

    Raises:
        SystemFault: The file cannot be removed, or there is no node directory.
    """
    path = os.path.join(nodes_dir, name)
    try:
        os.unlink(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and os.path.isdir(nodes_dir):
            return False
        raise _fault("remove", path, error) from error
    return True


def load(
    nodes_dir: str, before: dict[str, NodeFile] | None = None, names: set[str] | None = None
) -> tuple[dict[str, NodeFile], list[Stray]]:
    """Read the node directory.

    Args:
        nodes_dir: The node directory.
        before: Node files that an earlier call returned: one that has not changed since is not read again.
        names: The files to read; None for all.

    Returns:
        The node files by node name, and every other file in the directory.

    Raises:
        SystemFault: The directory cannot be read.
    """
    before = before or {}
    files: dict[str, NodeFile] = {}
    strays = []
    try:
        present = os.listdir(nodes_dir) if names is None else names
    except OSError as error:
        raise _fault("read", nodes_dir, error) from error
    for name in sorted(present):
        try:
            known = before.get(name)
            if known and known.stamp and known.stamp == _stamp(os.lstat(f"{nodes_dir}/{name}")):
                files[name] = known
            elif not _is_being_written(nodes_dir, name):
                files[name] = _load_file(nodes_dir, name, known)
        except FileNotFoundError:
            pass  # removed since the directory was listed
        except (InputError, OSError) as error:
            strays.append(Stray(name, str(error)))
    return files, strays


def check_dir(nodes_dir: str) -> None:
    """Return when there is a node directory.

    Raises:
        SystemFault: There is none, or it cannot be seen.
    """
    try:
        os.stat(nodes_dir)
    except OSError as error:
        raise _fault("read", nodes_dir, error) from error


def is_remnant(stray: Stray) -> bool:
    """Return whether a stray is the temporary file of a handler that died."""
    return _is_temporary(stray.name)


def _record(nodes_dir: str, line: str, name: str, is_exact: bool = False) -> tuple[bool, int]:
    """Write a line to a node file, unless it says the same; return whether it changed, and when that was last so."""
    path = f"{nodes_dir}/{name}"
    try:
        before, mtime_ns = _read_if_any(path)
        if line == before or (not is_exact and say_the_same(line, before)):
            return False, mtime_ns
        # Others may write to this directory too: the name cannot be guessed, and no file is opened that is there.
        temporary = f"{nodes_dir}/{_TEMPORARY_PREFIX}{name}.{os.urandom(_RANDOM_BYTES).hex()}"
        return True, _replace(path, temporary, line)
    except OSError as error:
        raise _fault("write", path, error) from error


def _load_file(nodes_dir: str, name: str, known: NodeFile | None) -> NodeFile:
    """Read a node file; return the known one where it still says the same, so that what follows from it is kept."""
    fault = name_fault(name)
    if fault:
        raise InputError(f"its name is not a node name: {fault}")
    text, found = _read(os.path.join(nodes_dir, name))
    stamp = _stamp(found) if time.time_ns() - found.st_ctime_ns > _SETTLED_NS else None
    if known and (known.line, known.mtime_ns) == (text, found.st_mtime_ns):
        known.stamp = stamp
        return known
    status, member = parse_line(text)
    if member.name != name:
        raise InputError(f"it describes another node, {quoted(member.name, 60)}")
    return NodeFile(status, member, found.st_mtime_ns, stamp, text)


def _stamp(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_ctime_ns


def _is_being_written(nodes_dir: str, name: str) -> bool:
    """Return whether a file is the temporary file of a handler that runs now, not one that a crash left behind."""
    if not _is_temporary(name):
        return False
    return abs(time.time() - os.lstat(os.path.join(nodes_dir, name)).st_mtime) < _WRITING_S


def _is_temporary(name: str) -> bool:
    node, _, number = name.removeprefix(_TEMPORARY_PREFIX).rpartition(".")
    # The previous release had a process id there.
    is_number = number.isdecimal() or (len(number) == 2 * _RANDOM_BYTES and set(number) <= _HEX_DIGITS)
    return name.startswith(_TEMPORARY_PREFIX) and is_number and not name_fault(node)


def _read_if_any(path: str) -> tuple[str, int]:
    """Return the content of a file and its time, nanoseconds since the epoch; "" and 0 where there is none."""
    try:
        text, found = _read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return "", 0  # a symbolic link is not ours, and replaced by rename
        raise
    return text, found.st_mtime_ns


def _read(path: str) -> tuple[str, os.stat_result]:
    """Return the content and the status of a file; anything but a regular file counts as empty."""
    fd = os.open(path, _READ_ONLY)
    try:
        status = os.fstat(fd)
        content = os.read(fd, LINE_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(fd)
    return content.decode("utf-8", "surrogateescape"), status


def _replace(path: str, temporary: str, text: str) -> int:
    """Put a new file with a text in the place of another; return its time, nanoseconds since the epoch."""
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            data = text.encode("utf-8", "surrogateescape")
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            mtime_ns = os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # it was never made
        raise
    return mtime_ns


def _fault(action: str, path: str, error: OSError) -> SystemFault:
    remedy = {
        errno.ENOENT: "make the directory or start the daemon, which makes it",
        **dict.fromkeys((errno.EACCES, errno.EPERM), "give this user the right to write there"),
        errno.EROFS: "mount it writable",
        **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    }.get(error.errno or 0, "see the error")
    return SystemFault(f"cannot {action} {path}: {error.strerror}; {remedy}; the next resync heals what was missed")
