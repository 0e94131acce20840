"""The daemon's log: it never waits for a reader of its lines."""

import json
import logging
import os
import select
import time
from collections.abc import Mapping
from typing import ClassVar

from serf_haproxy.serf.printing import printable

_LINE = 16384  # characters
_PATIENCE_S = 0.1  # a reader that works needs less
_PIECE_BYTES = select.PIPE_BUF  # what a pipe that polls as writable takes at once


class LineFormatter(logging.Formatter):
    """Formats a record as one line, whatever it contains; the lines of a traceback follow, set in.

    No text from outside can begin a line, so none can look like a line of ours.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        first, *more = super().format(record).split("\n")
        return "\n".join([printable(first, _LINE), *(f"    {printable(line, _LINE)}" for line in more)])

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the record's own line."""
        return printable(super().formatMessage(record), _LINE)


class LogfmtFormatter(LineFormatter):
    """Formats a record as level="..." and msg="...", with the escapes of a JSON string (logfmt)."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the record's own line."""
        return f"level={record.levelname} msg={json.dumps(printable(record.message, _LINE))}"


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, msg, and the lines of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        entry: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "msg": printable(record.getMessage(), _LINE),
        }
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            entry["traceback"] = [printable(line, _LINE) for line in lines]
        return json.dumps(entry)


def choose_formatter(log_format: str) -> logging.Formatter:
    """Return the formatter of a log format: logfmt or json."""
    return JsonFormatter() if log_format == "json" else LogfmtFormatter()


class JournalFormatter(logging.Formatter):
    """Begins each line of another formatter with its level, as journald reads it from a service (sd-daemon(3)).

    Args:
        inner: That formatter.
    """

    _PRIORITIES: ClassVar = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        prefix = f"<{self._PRIORITIES.get(record.levelname, 6)}>"
        return "\n".join(f"{prefix}{line}" for line in self._inner.format(record).split("\n"))


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


def make_handler(log_format: str, environ: Mapping[str, str]) -> LossyHandler:
    """Return the handler of standard error; where that is the journal, each line has its level.

    Args:
        log_format: logfmt or json.
        environ: The environment: systemd sets JOURNAL_STREAM to device and inode of the journal's socket.
    """
    handler, formatter = LossyHandler(2), choose_formatter(log_format)
    status = os.fstat(2)
    is_journal = environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    handler.setFormatter(JournalFormatter(formatter) if is_journal else formatter)
    return handler
