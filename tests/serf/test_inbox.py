"""The inbox of orders: any member can send them, so it is bounded, and what is in it harms nothing."""

import os
from pathlib import Path

import pytest

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.serf import inbox


def test_payloads_are_taken_in_their_order_and_once(tmp_path: Path) -> None:
    """Any bytes come back as they were, the oldest first."""
    payloads = [b"one", b"\0\xff\n", b"x" * inbox.MOST_BYTES]
    for payload in payloads:
        inbox.put(str(tmp_path), payload)
    assert inbox.take(str(tmp_path)) == payloads
    assert inbox.take(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_the_inbox_is_bounded(tmp_path: Path) -> None:
    """A full inbox takes no more, a payload beyond Serf's limit never comes in, and all are gone after one look."""
    for _ in range(inbox.MOST_FILES):
        inbox.put(str(tmp_path), b"x")
    with pytest.raises(SystemFault, match="is full"):
        inbox.put(str(tmp_path), b"x")
    with pytest.raises(InputError, match="more than 512 bytes"):
        inbox.put(str(tmp_path), b"x" * 513)
    assert len(inbox.take(str(tmp_path))) == inbox.MOST_FILES
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_payload_is_left_out(tmp_path: Path) -> None:
    """A link is not followed, a FIFO not waited for, a large file not read, and the file of a dead handler goes."""
    (tmp_path / "secret").write_text("secret")
    box = tmp_path / "inbox"
    box.mkdir()
    (box / "1").symlink_to(tmp_path / "secret")
    os.mkfifo(box / "2")
    (box / "3").write_bytes(b"x" * 10_000)
    (box / ".4").write_bytes(b"torn")
    (box / ".5").write_bytes(b"torn")
    os.utime(box / ".4", (1, 1))
    inbox.put(str(box), b"x")
    assert inbox.take(str(box)) == [b"x"]
    assert sorted(os.listdir(box)) in ([".5"], [".5", "1"])


def test_a_missing_inbox_is_a_system_fault_of_the_handler_only(tmp_path: Path) -> None:
    """The handler says what to do; the daemon finds nothing."""
    with pytest.raises(SystemFault, match="start the daemon, which makes it"):
        inbox.put(str(tmp_path / "none"), b"x")
    assert inbox.take(str(tmp_path / "none")) == []
