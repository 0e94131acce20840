"""Durable files: written to a temporary file, flushed, then renamed into place."""

import contextlib
import os
import stat

from serf_haproxy.errors import SystemFault


def write_durably(path: str, text: str, mode: int = 0o644) -> None:
    """Replace a file so that a reader, or a crash, finds either the old content or the new.

    Raises:
        SystemFault: The file cannot be written; the previous one is untouched.
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
        raise SystemFault(f"cannot write {path}: {error.strerror}; the previous file is untouched") from error


def rename_durably(source: str, target: str) -> None:
    """Rename a flushed file and flush the directory; raises OSError."""
    os.replace(source, target)
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_text(path: str) -> str | None:
    """Return the content of a file, None when it does not exist.

    Raises:
        SystemFault: The file exists and cannot be read, or is not a regular file.
    """
    try:
        # O_NONBLOCK: do not wait on a FIFO or a device at this path.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="utf-8", errors="surrogateescape", newline="") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SystemFault(f"cannot read {path}: it is not a regular file; replace it by one")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SystemFault(f"cannot read {path}: {error.strerror}") from error
