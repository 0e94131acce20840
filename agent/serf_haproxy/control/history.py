"""The history: what was decided, ordered, found and done, and why, one line of JSON each.

    {"at_s": 1795662000.1, "balancer": "lb1", "kind": "node", "service": "nodes", "node": "web1",
     "what": "serving -> draining", "why": "an order drains it: ...", "by": "alice"}

`kind` is "node" (another decision about it), "order", "drift", "pass" (it changed something, or failed) or "scale" (the
autoscaler started or stopped a server, or tried to). The file is only added to, without waiting for the disk: a power
cut may cost the last seconds. At a size it becomes the older one of two.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from serf_haproxy.control.record import DAMAGE, parse_finite
from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import format_key
from serf_haproxy.system.files import open_regular, set_aside
from serf_haproxy.system.moments import format_time

NODE, ORDER, DRIFT, PASS, SCALE = "node", "order", "drift", "pass", "scale"

_MOST_BYTES = 4 * 1024 * 1024
_RECENT_BYTES = 512 * 1024  # what is read within milliseconds
_LINE_COUNT = 2000  # of one pass
_TEXT = 500  # characters
_ADDING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never wait for a FIFO


class Happening(NamedTuple):
    """A line of the history.

    Attributes:
        at_s: When, seconds since the epoch.
        balancer: The balancer that tells it, by its node name.
        kind: NODE, ORDER, DRIFT, PASS or SCALE.
        service: The service that it is about, "" for all or none.
        node: The node that it is about, "" for all or none.
        what: What happened.
        why: The reason.
        by: The operator who wanted it, "" where none did.
    """

    at_s: float
    balancer: str
    kind: str
    service: str
    node: str
    what: str
    why: str
    by: str = ""

    def __str__(self) -> str:
        """Return it as one line for people."""
        about = format_key((self.service, self.node)) if self.service and self.node else self.node or self.service
        subject = " ".join(filter(None, (self.balancer, self.kind, about)))
        by = f" (by {self.by})" if self.by else ""
        return printable(f"{format_time(self.at_s)} {subject}: {self.what}; {self.why}{by}", 2000)


class Wanted(NamedTuple):
    """Which lines are wanted.

    Attributes:
        node: Of this node; "" for all.
        service: Of this service; "" for all.
        since_s: Not before this time, seconds since the epoch.
    """

    node: str = ""
    service: str = ""
    since_s: float = 0.0

    def has(self, one: Happening) -> bool:
        """Return whether a line is wanted."""
        is_about = (not self.node or one.node == self.node) and (not self.service or one.service in ("", self.service))
        return is_about and one.at_s >= self.since_s


class History:
    """The history in a state directory.

    Args:
        state_dir: The state directory.
    """

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, "history.jsonl")
        self._older_path = f"{self._path}.1"

    def set_aside(self) -> None:
        """Set aside what is in the place of a file and is none; the caller holds the lock of the pass."""
        set_aside(self._path)
        set_aside(self._older_path)

    def add(self, happenings: Iterable[Happening]) -> None:
        """Add lines.

        Raises:
            SystemFault: The file cannot be written.
        """
        listed = list(happenings)
        if not listed:
            return
        lines = [_format(one) for one in listed[:_LINE_COUNT]]
        if more := listed[_LINE_COUNT:]:
            lines.append(
                _format(more[-1]._replace(service="", node="", what=f"{len(more)} more", why="they are too many"))
            )
        data = "".join(lines).encode("utf-8", "backslashreplace")
        try:
            fd = os.open(self._path, _ADDING, 0o600)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise SystemFault(f"cannot write {self._path}: it is not a regular file; replace it by one")
                size_bytes = found.st_size
                is_torn = size_bytes > 0 and os.pread(fd, 1, size_bytes - 1) != b"\n"  # a full disk, a power cut
                os.write(fd, b"\n" + data if is_torn else data)
                is_full = size_bytes + len(data) > _MOST_BYTES
                # Both the daemon and the autoscaler write: the file may have become the older one a moment ago.
                if is_full and os.path.samestat(os.fstat(fd), os.stat(self._path)):
                    os.replace(self._path, self._older_path)
            finally:
                os.close(fd)
        except OSError as error:
            raise SystemFault(f"cannot write {self._path}: {error.strerror}; the history has a gap") from error

    def read(self, wanted: Wanted) -> Iterator[Happening]:
        """Yield the lines that are wanted, the oldest first; a damaged one is left out.

        Raises:
            SystemFault: A file cannot be read.
        """
        for path in (self._older_path, self._path):
            try:
                with open(open_regular(path), encoding="utf-8", errors="replace") as file:
                    for line in file:
                        if (one := _parse(line)) and wanted.has(one):
                            yield one
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SystemFault(f"cannot read {path}: {error.strerror}; run this as the daemon's user") from error

    def read_last(self, most_bytes: int) -> list[Happening]:
        """Return the last lines, the oldest first: those in so many bytes of the end of each file.

        Raises:
            SystemFault: A file cannot be read.
        """
        found: list[Happening] = []
        for path in (self._older_path, self._path):
            try:
                with open(open_regular(path), "rb") as file:
                    start = max(0, os.fstat(file.fileno()).st_size - most_bytes - 1)  # with the line feed before it
                    file.seek(start)
                    lines = file.read(most_bytes + 1).decode(errors="replace").split("\n")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SystemFault(f"cannot read {path}: {error.strerror}") from error
            found += [one for line in lines[1 if start else 0 :] if (one := _parse(line))]
        return found

    def read_recent(self, wanted: Wanted, most: int) -> list[Happening]:
        """Return the last lines that are wanted, so many at most, the oldest first: of the end of the history alone.

        Raises:
            SystemFault: A file cannot be read.
        """
        return [one for one in self.read_last(_RECENT_BYTES) if wanted.has(one)][-most:]

    def follow(self, wanted: Wanted, last_bytes: int = 0) -> "Tail":
        """Return what reads the lines that are added from now on, after those in so many bytes at the end."""
        return Tail(self._path, wanted, last_bytes)


class Tail:
    """Reads what is added to the history, also when the file becomes the older one.

    Args:
        path: The file.
        wanted: Which lines are wanted.
        last_bytes: Lines in so many bytes at the end are read too.
    """

    def __init__(self, path: str, wanted: Wanted, last_bytes: int = 0) -> None:
        self._path, self._wanted = path, wanted
        self._file = self._open()
        if self._file and (start := max(0, self._file.seek(0, os.SEEK_END) - last_bytes)):
            self._file.seek(start - 1)
            self._file.readline()  # the rest of a line, or the line feed before the first one
        elif self._file:
            self._file.seek(0)
        self._rest = ""

    def read(self) -> list[Happening]:
        """Return the lines that were added since the last call."""
        found = self._read_present()
        with contextlib.suppress(FileNotFoundError):
            if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path)):
                self.close()
                self._file, self._rest = self._open(), ""
                found += self._read_present()
        return found

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
        self._file = None

    def _open(self) -> Any:
        try:
            return open(open_regular(self._path), encoding="utf-8", errors="replace")
        except (OSError, SystemFault):
            return None

    def _read_present(self) -> list[Happening]:
        if self._file is None:
            return []
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        return [one for line in lines if (one := _parse(line)) and self._wanted.has(one)]


def _format(one: Happening) -> str:
    return (
        json.dumps({key: text[:_TEXT] if isinstance(text, str) else text for key, text in one._asdict().items()}) + "\n"
    )


def _parse(line: str) -> Happening | None:
    try:
        told: Any = json.loads(line)
        texts = [str(told[name]) for name in Happening._fields[1:]]
        return Happening(parse_finite(told["at_s"]), *texts)
    except (*DAMAGE, LookupError):
        return None
