"""What the handler answers to queries of Serf: files that the daemon has written. Cheap to import.

    lb-status             the balancer in short
    lb-ready              "ready", or why it is not
    lb-explain NODE       what was decided about a node, in each of its services
    lb-demand             the load of services that scale: what their balancers ask each other
    lb-orders PAGE        the orders of this balancer; what balancers ask each other

The daemon has signed and dated what its files say (`policy.answer_wire`), where it has a secret. It renews the file
`status` every few seconds. If that is old, the daemon does not run, and the answers say so, unsigned.
"""

import os
import stat
import time

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.serf.printing import printable

STATUS, READY, EXPLAIN, ORDERS = "lb-status", "lb-ready", "lb-explain", "lb-orders"
DEMAND = "lb-demand"
FILTERS = f"query:{STATUS}, query:{READY}, query:{EXPLAIN}, query:{ORDERS}, query:{DEMAND}"
MOST_BYTES = 900  # of the 1024 bytes of an answer, Serf needs some for itself
STALE_S = 30.0  # the daemon renews the answers much more often
PAGE_COUNT = 256

_FILE_BYTES = 4 * 1024 * 1024
_READ_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def find(answers_dir: str, name: str, payload: bytes) -> bytes:
    """Return the answer to a query.

    Args:
        answers_dir: The directory of the daemon's answers.
        name: The query's name.
        payload: What it asks about: the name of a node, or the number of a page.

    Raises:
        InputError: There is no such query, or it asks about something that cannot be.
        SystemFault: The daemon has written no answer.
    """
    asked = payload.decode("utf-8", "replace").strip()
    if name == ORDERS:
        if not (asked.isascii() and asked.isdecimal() and len(asked) < 4 and int(asked) < PAGE_COUNT):
            raise InputError(f"{name}: the payload is the number of a page")
        return _read(answers_dir, f"orders.{int(asked)}")[0]
    if name == DEMAND:
        return _read(answers_dir, "demand")[0]
    if name not in (STATUS, READY, EXPLAIN):
        raise InputError(f"{printable(name, 60)} is no query of ours: there are {FILTERS}")
    status, written_s = _read(answers_dir, "status")
    age_s = time.time() - written_s
    if age_s > STALE_S:
        return f"not ready: the daemon has reported nothing for {age_s:.0f} s".encode()
    if name == STATUS:
        return _cut(status)
    if name == READY:
        return _cut(_read(answers_dir, "ready")[0])
    return _cut(_explain(_read(answers_dir, "nodes")[0], asked))


def _explain(lines: bytes, node: str) -> bytes:
    """Return the lines about a node: in the file each begins with its name and a tab."""
    start = f"{node}\t".encode()
    found = [line[len(start) :] for line in lines.split(b"\n") if line.startswith(start)]
    return b"\n".join(found) or f"{printable(node, 60)} is not known here".encode()


def _cut(answer: bytes) -> bytes:
    return answer if len(answer) <= MOST_BYTES else answer[: MOST_BYTES - 3] + b"..."


def _read(answers_dir: str, name: str) -> tuple[bytes, float]:
    """Return the content and the time of an answer."""
    path = os.path.join(answers_dir, name)
    try:
        fd = os.open(path, _READ_ONLY)
        try:
            found = os.fstat(fd)
            content = os.read(fd, _FILE_BYTES) if stat.S_ISREG(found.st_mode) else b""
        finally:
            os.close(fd)
    except OSError as error:
        raise SystemFault(f"cannot read {path}: {error.strerror}; does the daemon run?") from error
    return content, found.st_mtime
