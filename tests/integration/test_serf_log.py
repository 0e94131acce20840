"""The filter of Serf's log: one line for each record, whatever a record contains."""

import fcntl
import os
import subprocess
from collections.abc import Sequence

import pytest

from conftest import ROOT

FILTER = ROOT / "s6" / "serf" / "log" / "data" / "lines"
FORGED = b"2026/11/26 00:00:00 [ERR] forged"


def filter_writes(writes: Sequence[bytes], has_packets: bool = True) -> bytes:
    """Return what the filter makes of these writes of Serf."""
    read_end, write_end = os.pipe()
    if has_packets:
        fcntl.fcntl(write_end, fcntl.F_SETFL, fcntl.fcntl(write_end, fcntl.F_GETFL) | os.O_DIRECT)
    with subprocess.Popen([FILTER], stdin=read_end, stdout=subprocess.PIPE) as process:
        os.close(read_end)
        try:
            for data in writes:
                assert os.write(write_end, data) == len(data)
        finally:
            os.close(write_end)
        said, _ = process.communicate(timeout=30)
    return said


@pytest.mark.parametrize(
    ("writes", "lines"),
    [
        ((b"    one\ttwo", b"\n", b"    three", b"\n"), b"    one\ttwo\n    three\n"),  # Serf's records
        ((b"one line\n", b"another\n"), b"one line\nanother\n"),  # scripts
        ((b"goroutine ", b"1", b" [running]", b":\n"), b"goroutine 1 [running]:\n"),  # Go's runtime
        ((b"\x1b[31m\xc3\xa9\x00\r", b"\n"), b"?[31m????\n"),
        ((b"    x\n" + FORGED + b" 10.0.0.1", b"\n"), b"    x?" + FORGED + b" 10.0.0.1\n"),
        ((b"    x\n\n", b"\n"), b"    x?\n\n"),
        ((b"\n" + FORGED, b"\n"), b"?" + FORGED + b"\n"),
    ],
)
def test_only_the_end_of_a_record_ends_a_line(writes: Sequence[bytes], lines: bytes) -> None:
    """A line feed inside a record is shown as a question mark, as every other byte that is not printable ASCII."""
    assert filter_writes(writes) == lines


@pytest.mark.parametrize("before", [4095, 4096, 8191, 12287, 65535])
def test_a_record_of_several_packets_is_one_line(before: int) -> None:
    """A long record reaches the filter in pieces; a line feed at the end of a piece ends no line."""
    record = b"x" * before + b"\n" + FORGED
    assert filter_writes([record, b"\n"]) == b"x" * before + b"?" + FORGED + b"\n"


def test_without_packets_no_line_is_forged() -> None:
    """Where the pipe keeps no records apart, lines may be joined; none is begun by what a record contains."""
    said = filter_writes([b"    x\n" + FORGED + b" 10.0.0.1", b"\n"], has_packets=False)
    assert said in (b"    x?" + FORGED + b" 10.0.0.1\n",)
