"""The daemon's log: one line for each record, as logfmt or as JSON."""

import json
import logging
import sys

import pytest

from serf_haproxy.daemon.log import choose_formatter

TEXT = 'a "quoted" back\\slash\nlevel=ERROR msg="forged" \x1b[31m'


def make_record(text: str) -> logging.LogRecord:
    """Return a record."""
    return logging.LogRecord("serf-haproxy", logging.WARNING, "", 0, "%s", (text,), None)


def test_logfmt_has_a_level_and_a_quoted_message() -> None:
    """Whatever a message contains, it is one line, and its quotes are escaped."""
    line = choose_formatter("logfmt").format(make_record(TEXT))
    assert line.startswith('level=WARNING msg="a \\"quoted\\" back')
    assert json.loads(line.partition("msg=")[2]).endswith('level=ERROR msg="forged" \\x1b[31m')
    assert line.isprintable()


def test_json_has_the_time_too() -> None:
    """Each record is one object on one line, with the lines of a traceback as a list."""
    record = make_record(TEXT)
    try:
        raise ValueError("x\ny")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = choose_formatter("json").format(record)
    entry = json.loads(line)
    assert "\n" not in line
    assert (entry["level"], entry["msg"][:10]) == ("WARNING", 'a "quoted"')
    assert entry["time"].endswith("Z")
    assert entry["traceback"][-2:] == ["ValueError: x", "y"]


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_a_line_is_ascii(log_format: str) -> None:
    """No character of another alphabet, and no control, reaches the log."""
    assert choose_formatter(log_format).format(make_record("caf\xe9 \u202e")).isascii()
