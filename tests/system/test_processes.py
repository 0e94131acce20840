"""Subprocesses and their time limits, with real processes."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from serf_haproxy.errors import SystemFault
from serf_haproxy.system.deadlines import time_left
from serf_haproxy.system.processes import OUTPUT_BYTES, RESULT_BYTES, Dependent, Fed, run, run_apart

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


def test_time_left_ends() -> None:
    """After a deadline, the time left is 0."""
    assert 0 < time_left(time.monotonic() + 10) <= 10
    with pytest.raises(TimeoutError):
        time_left(time.monotonic() - 0.001)


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


def test_a_fed_program_is_never_waited_for() -> None:
    """A program that does not read takes what its pipe holds, then nothing; one that does not end is killed."""
    deaf = Fed([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
    line = b"x" * 4095 + b"\n"
    taken = [deaf.feed(line) for _ in range(300)]
    assert taken[0]
    assert not taken[-1]
    assert taken == sorted(taken, reverse=True)  # a line is taken as a whole or not at all
    assert deaf.read_status() is None
    deaf.stop(0.1)
    assert deaf.read_status() == -signal.SIGKILL


def test_a_fed_program_ends_with_its_input() -> None:
    """A program gets the lines in order, and the end of its input."""
    program = "import sys; sys.exit(sys.stdin.read() == 'one\\ntwo\\n')"
    eager = Fed([sys.executable, "-c", program])
    assert eager.feed(b"one\n")
    assert eager.feed(b"two\n")
    eager.stop(60.0)
    assert eager.read_status() == 1
    with pytest.raises(SystemFault, match="cannot start /nonexistent"):
        Fed(["/nonexistent"])


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "closed"])
def test_a_program_runs_where_the_working_directory_cannot_be_used(tmp_path: Path, is_gone: bool) -> None:
    """Where the working directory is gone, or closed to the user, a program runs in /: HAProxy refuses any other."""
    script = """
import os, sys
from serf_haproxy.system.processes import run
os.chdir(sys.argv[1])
if sys.argv[2] == "gone":
    os.rmdir(sys.argv[1])
else:
    os.chmod(sys.argv[1], 0o700)
    os.setgroups([]), os.setgid(61235), os.setuid(61235)
print(run(["pwd"], 10).output.strip(), os.path.basename(os.readlink("/proc/self/cwd")))
"""
    here = tmp_path / "here"
    here.mkdir()
    argv = [sys.executable, "-c", script, str(here), "gone" if is_gone else "closed"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == ("/ here (deleted)\n" if is_gone else "/ here\n")


DEPENDENT = """
import os, sys, time
from serf_haproxy.system.processes import Dependent
child = Dependent(["sh", "-c", "echo $$ && exec sleep 60"], sys.argv[1], (), {"PATH": os.environ["PATH"]})
while not (said := child.read_output()):
    time.sleep(0.01)
print(said.decode().strip(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("user", ["", "65534:65534"])
def test_a_dependent_program_never_outlives_us(user: str) -> None:
    """When the process that started it is killed, the kernel kills it too, also where it is another user's."""
    if user and os.geteuid():
        pytest.skip("only root can become another user")
    with subprocess.Popen([sys.executable, "-c", DEPENDENT, user], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        assert not user or psutil.Process(child).uids().effective == 65534
        parent.kill()
    deadline = time.monotonic() + GRACE_S
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_dependent_program_says_how_it_ended() -> None:
    """Its output and its status are kept; closing it twice, or after its end, does nothing."""
    child = Dependent(["sh", "-c", "echo out; echo err >&2; exit 3"], "", (), {"PATH": os.environ["PATH"]})
    deadline = time.monotonic() + GRACE_S
    while child.read_status() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert child.read_output() == b"out\nerr\n"
    assert child.read_status() == 3
    child.send(signal.SIGTERM)
    child.close()
    child.close()
