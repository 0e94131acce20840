"""Subprocesses and HAProxy's CLI: real processes, real Unix sockets, and time limits."""

import contextlib
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fakes.servers import Talk, be_silent, close_at_once, drip, pour, serving_unix
from serf_haproxy.errors import HaproxyFault, SystemFault
from serf_haproxy.system import processes
from serf_haproxy.system.processes import ANSWER_BYTES, OUTPUT_BYTES, RESULT_BYTES, ask, run, run_apart

pytestmark = pytest.mark.usefixtures("time_limit")

LIMIT_S = 0.4
GRACE_S = 5.0  # tolerance for a busy machine


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_output_and_status_are_returned() -> None:
    """`run` returns a program's exit status and its standard output and error."""
    assert run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], 10) == (3, "out\nerr\n")


def test_signal_is_a_negative_status() -> None:
    """The status of a program killed by a signal is the negative signal number."""
    assert run(["/bin/sh", "-c", "kill -9 $$"], 10).status == -9


def test_standard_input_is_empty() -> None:
    """A program's standard input is empty, not that of the caller."""
    ours_fd, typist_fd = os.pipe()
    os.write(typist_fd, b"typed")
    saved_fd = os.dup(0)
    os.dup2(ours_fd, 0)
    try:
        assert run(["/usr/bin/head", "-c", "5"], 10) == (0, "")
    finally:
        os.dup2(saved_fd, 0)
        for fd in (ours_fd, typist_fd, saved_fd):
            os.close(fd)


def test_no_shell_interprets_the_arguments() -> None:
    """Arguments are passed unchanged."""
    assert run(["/bin/echo", "$HOME", "a;b", "*"], 10).output == "$HOME a;b *\n"


def test_environment_can_be_given() -> None:
    """A program gets the given environment, or that of the caller."""
    assert run(["/usr/bin/env"], 10, {"A": "1"}).output == "A=1\n"
    assert f"PATH={os.environ['PATH']}\n" in run(["/usr/bin/env"], 10).output


def test_output_of_any_bytes_is_returned() -> None:
    """Bytes that are not UTF-8 are escaped, and much output does not block."""
    assert run(["/bin/sh", "-c", r"printf 'a\377b'"], 10).output == r"a\xffb"
    assert len(run(["/bin/sh", "-c", "yes | head -c 1000000"], 10).output) == 1_000_000


def test_output_is_limited() -> None:
    """Too much output is cut, with the exit status kept; a program that prints endlessly is killed."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    completed = run(["/bin/sh", "-c", "echo first; yes | head -c 300000000; exit 3"], 60)
    assert (completed.status, completed.output[:8], len(completed.output)) == (3, "first\ny\n", OUTPUT_BYTES)
    with pytest.raises(SystemFault, match="yes gave no result in 1 s"):
        run(["yes"], 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before_kib + 50_000


@pytest.mark.parametrize("program", ["/nonexistent/program", "/", "no-such-program-anywhere"])
def test_missing_program_is_an_error(program: str) -> None:
    """A program that cannot be started is an error with its name and a remedy."""
    with pytest.raises(SystemFault, match=re.escape(f"cannot start {program}: ") + ".*; install it or set its path"):
        run([program], 10)


def test_program_without_end_is_killed_with_its_children(tmp_path: Path, wait_until: Callable) -> None:
    """After the time limit, a program and its children are killed."""
    pids = tmp_path / "pids"
    with pytest.raises(SystemFault, match="/bin/sh gave no result in 1 s and was killed"):
        run(["/bin/sh", "-c", f"sleep 1000 & echo $$ $! >{pids}; wait"], 1)
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: not is_alive(pid), f"end of process {pid}")


def test_detached_child_is_not_waited_for(tmp_path: Path) -> None:
    """A child in its own session that keeps the output open does not delay the error beyond the time limit."""
    pid_path = tmp_path / "pid"
    code = f"""if True:
        import os, time
        if os.fork() == 0:
            os.setsid()
            open({str(pid_path)!r}, "w").write(str(os.getpid()))
        time.sleep(50)"""
    start_s = time.monotonic()
    with pytest.raises(SystemFault, match="gave no result in 1 s"):
        run([sys.executable, "-S", "-c", code], 1)
    assert time.monotonic() - start_s < 1 + GRACE_S
    psutil.Process(int(pid_path.read_text())).kill()


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


def test_time_left_ends() -> None:
    """After a deadline, the time left is 0."""
    assert 0 < processes.time_left(time.monotonic() + 10) <= 10
    with pytest.raises(TimeoutError):
        processes.time_left(time.monotonic() - 0.001)


def test_work_apart_returns_the_result() -> None:
    """A function in a child process returns its result, of any size, and leaves no child behind."""
    before = psutil.Process().children()
    assert run_apart(lambda: b"x" * 3_000_000, 5, 2**26) == b"x" * 3_000_000
    assert run_apart(lambda: b"", 5, 2**26) == b""
    assert psutil.Process().children() == before


def _loop() -> bytes:
    while True:
        pass


@pytest.mark.parametrize(
    ("work", "timeout_s", "reason"),
    [
        (_loop, 0.3, "no result in 0.3 s"),
        (lambda: time.sleep(60) or b"", 0.3, "no result in 0.3 s"),
        (lambda: b"x" * 2**28, 20, "needed more than 32 MiB"),
        (lambda: b"x" * (RESULT_BYTES + 1), 20, "its result is longer than 16 MiB"),
        (lambda: os._exit(0) or b"", 20, ""),
        (lambda: os.kill(os.getpid(), signal.SIGKILL) or b"", 20, "it died"),
        (lambda: 1 // 0 and b"", 20, "it died"),
    ],
    ids=["loops", "sleeps", "uses too much memory", "prints too much", "ends early", "crashes", "raises"],
)
def test_work_apart_cannot_harm(work: Callable[[], bytes], timeout_s: float, reason: str) -> None:
    """Whatever a function does in a child process, the caller returns in time and no child is left."""
    before = psutil.Process().children()
    if reason:
        with pytest.raises(SystemFault, match=reason):
            run_apart(work, timeout_s, 2**25)
    else:
        assert run_apart(work, timeout_s, 2**25) == b""
    assert psutil.Process().children() == before
