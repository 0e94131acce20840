"""The daemon's log: it never waits for a reader of its lines."""

import logging
import os
import select

_PATIENCE_S = 0.1  # a reader that works needs less
_PIECE_BYTES = select.PIPE_BUF  # what a pipe that polls as writable takes at once


class LossyHandler(logging.Handler):
    """Writes lines to a descriptor. Lines that it does not accept are dropped, counted, and reported with the next one.

    It polls before each write. Setting O_NONBLOCK would affect every process that shares the descriptor.

    Args:
        fd: The descriptor.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._dropped_count = 0
        self._is_torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's lines if possible; never raise and never wait for long."""
        text = self.format(record) + "\n"
        if self._dropped_count:
            words = f"{self._dropped_count} lines are lost: the log was not read"
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
