"""What the handler answers to queries of Serf."""

import os
import time
from pathlib import Path

import pytest

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.serf import answers


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """Return a directory with the daemon's answers."""
    (tmp_path / "status").write_text("lb1 UNCHANGED: fine\n")
    (tmp_path / "ready").write_text("ready\n")
    (tmp_path / "nodes").write_text("web1\tapi serving\nweb1\tnodes draining\nweb10\tnodes serving\n")
    (tmp_path / "orders.0").write_text("v1.x []")
    (tmp_path / "secret").write_text("secret")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "payload", "answer"),
    [
        ("lb-status", b"", b"lb1 UNCHANGED: fine\n"),
        ("lb-ready", b"anything", b"ready\n"),
        ("lb-explain", b"web1\n", b"api serving\nnodes draining"),
        ("lb-explain", b"web10", b"nodes serving"),
        ("lb-explain", b"web", b"web is not known here"),
        ("lb-explain", b"", b" is not known here"),
        ("lb-explain", b"\x1b[2J\xff", b"\\x1b[2J\\ufffd is not known here"),
        ("lb-orders", b"0\n", b"v1.x []"),
    ],
)
def test_a_query_is_answered(directory: str, name: str, payload: bytes, answer: bytes) -> None:
    """Each query has its answer, whatever bytes it asks about."""
    assert answers.find(directory, name, payload) == answer


@pytest.mark.parametrize("payload", [b"", b"../secret", b"/etc/passwd", b"-1", b"256", b"0x1", "²".encode(), b"1\x000"])
def test_a_page_is_a_small_number(directory: str, payload: bytes) -> None:
    """No other file can be asked for."""
    with pytest.raises(InputError):
        answers.find(directory, "lb-orders", payload)


def test_other_queries_are_refused(directory: str) -> None:
    """A name that is none of ours is refused, and printed safely."""
    with pytest.raises(InputError, match=r"lb-x\\x1b is no query of ours"):
        answers.find(directory, "lb-x\x1b", b"")


def test_an_answer_is_short(directory: str) -> None:
    """An answer is cut to what Serf sends."""
    Path(directory, "status").write_text("x" * 5000)
    assert len(answers.find(directory, "lb-status", b"")) == answers.MOST_BYTES


def test_old_answers_say_that_the_daemon_is_away(directory: str) -> None:
    """When the daemon has not renewed its files, every answer says since when; a missing file is a fault."""
    then_s = time.time() - 100
    os.utime(os.path.join(directory, "status"), (then_s, then_s))
    for name in ("lb-status", "lb-ready", "lb-explain"):
        assert answers.find(directory, name, b"web1").startswith(b"not ready: the daemon has reported nothing for 10")
    os.unlink(os.path.join(directory, "status"))
    with pytest.raises(SystemFault, match="does the daemon run"):
        answers.find(directory, "lb-ready", b"")
