"""One exchange with HAProxy's CLI: real Unix sockets, and time limits."""

import contextlib
import re
import socket
import time
from pathlib import Path

import pytest

from fakes.servers import Talk, be_silent, close_at_once, drip, pour, serving_unix
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.socket import ANSWER_BYTES, ask

pytestmark = pytest.mark.usefixtures("time_limit")

LIMIT_S = 0.4
GRACE_S = 5.0  # tolerance for a busy machine


def answer(text: bytes, *, is_slow: bool = False) -> Talk:
    """Read the client's whole command, answer with that command and a text, and close."""

    def talk(connection: socket.socket) -> None:
        said = b""
        while chunk := connection.recv(100):
            said += chunk
        for piece in [bytes([byte]) for byte in said + text] if is_slow else [said + text]:
            connection.sendall(piece)
        connection.close()

    return talk


@pytest.mark.parametrize("is_slow", [False, True])
def test_whole_answer_is_returned(tmp_path: Path, is_slow: bool) -> None:
    """`ask` sends one line, closes the write side and reads the whole answer, however it is split."""
    with serving_unix(tmp_path / "cli", answer(b"line 1\nline 2 \xff\n\n", is_slow=is_slow)) as path:
        assert ask(path, "show info", 10) == "show info\nline 1\nline 2 \\xff\n\n"


def test_large_answer_is_returned(tmp_path: Path) -> None:
    """An answer of many megabytes is returned completely."""
    with serving_unix(tmp_path / "cli", answer(b"x" * 10_000_000)) as path:
        assert len(ask(path, "show stat", 10)) == 10_000_010


def test_closing_without_an_answer_is_an_empty_answer(tmp_path: Path) -> None:
    """A connection closed without an answer, as HAProxy 2.6 does after some commands, is an empty answer."""
    with serving_unix(tmp_path / "cli", answer(b"")) as path:
        assert ask(path, "reload", 10) == "reload\n"


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (be_silent, f"no answer to 'show info' in {LIMIT_S:g} s"),
        (drip, f"no answer to 'show info' in {LIMIT_S:g} s"),
        (pour, "show info"),
    ],
)
def test_answer_without_end_is_an_error(tmp_path: Path, talk: Talk, words: str) -> None:
    """A server that sends nothing, little or much without an end is abandoned after the time limit."""
    start_s = time.monotonic()
    with serving_unix(tmp_path / "cli", talk) as path, pytest.raises(HaproxyFault, match=f"{path}: .*{words}"):
        ask(path, "show info", LIMIT_S)
    assert time.monotonic() - start_s < LIMIT_S + GRACE_S


def test_a_payload_is_never_shown(tmp_path: Path) -> None:
    """An error names the command without the lines behind it, which may be a private key."""
    with (
        serving_unix(tmp_path / "cli", be_silent) as path,
        pytest.raises(HaproxyFault, match="set ssl cert a") as caught,
    ):
        ask(path, "set ssl cert a <<\nSECRET\n", LIMIT_S)
    assert "SECRET" not in str(caught.value)


def test_answer_too_large_is_an_error(tmp_path: Path) -> None:
    """An oversized answer is abandoned before it fills the memory."""
    with (
        serving_unix(tmp_path / "cli", pour) as path,
        pytest.raises(HaproxyFault, match=f"the answer to 'show stat' is longer than {ANSWER_BYTES} bytes"),
    ):
        ask(path, "show stat", 30)


def test_connection_closed_at_once(tmp_path: Path) -> None:
    """A server that closes the connection at once causes an error or an empty answer."""
    with serving_unix(tmp_path / "cli", close_at_once) as path, contextlib.suppress(HaproxyFault):
        assert ask(path, "show info", 10) == ""


@pytest.mark.parametrize("kind", ["missing", "file", "directory", "dead socket", "too long"])
def test_missing_server_is_an_error(tmp_path: Path, kind: str) -> None:
    """When no process listens, the error names the socket and asks whether HAProxy runs."""
    path = tmp_path / ("cli" if kind != "too long" else "x" * 200)
    if kind == "file":
        path.write_text("")
    elif kind == "directory":
        path.mkdir()
    elif kind == "dead socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    with pytest.raises(HaproxyFault, match=re.escape(f"{path}: ") + ".*; does HAProxy run?"):
        ask(str(path), "show info", 10)
