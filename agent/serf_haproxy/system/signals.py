"""Signals that a loop collects and obeys where it is safe to."""

import contextlib
import os
import signal
from collections.abc import Iterator

_COLLECTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def collecting(seen: set[int]) -> Iterator[int]:
    """Add signals to a set, and make a descriptor readable, so that none is missed between looking and waiting.

    Args:
        seen: Where SIGTERM, SIGINT and SIGHUP are added.

    Yields:
        The descriptor; what it has is to be read away.
    """
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in _COLLECTED:
        signal.signal(number, lambda caught, _frame: seen.add(caught))
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(-1)
        os.close(readable)
        os.close(writable)
