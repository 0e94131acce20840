"""The resident's log: lines to a descriptor that must never keep it waiting."""

import logging
import os
import select

_PATIENCE_S = 0.1  # a reader that lives needs less
_PIECE_BYTES = select.PIPE_BUF  # what a pipe that polls as writable takes at once


class LossyHandler(logging.Handler):
    """Writes lines to a descriptor; those that it does not take are dropped, counted, and told with the next one.

    It is asked before each write instead of being made non-blocking: that would count for all who share it.

    Args:
        fd: The descriptor.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._dropped_count = 0
        self._is_torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's lines if that is possible; never raise and never wait for long."""
        text = self.format(record) + "\n"
        if self._dropped_count:
            words = f"{self._dropped_count} lines are lost: nobody took them"
            lost = logging.makeLogRecord({"levelname": "WARNING", "msg": words})
            text = f"{self.format(lost)}\n{text}"
        try:
            self._write((b"\n" if self._is_torn else b"") + text.encode("utf-8", "backslashreplace"))
        except OSError:
            self._dropped_count += 1
        else:
            self._dropped_count = 0

    def _write(self, data: bytes) -> None:
        """Write all of it, or raise OSError."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while data:
            if not poll.poll(0 if self._dropped_count else 1000 * _PATIENCE_S):
                raise TimeoutError
            data = data[os.write(self._fd, data[:_PIECE_BYTES]) :]
            self._is_torn = bool(data)
