"""Subprocesses, and functions that run in a child process: all with time limits."""

import math
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NamedTuple, NoReturn, cast

from serf_haproxy.errors import SystemFault
from serf_haproxy.system.deadlines import time_left

OUTPUT_BYTES = 1024 * 1024  # of what a program prints, the rest is thrown away
RESULT_BYTES = 16 * 1024 * 1024  # a configuration of 100,000 servers takes 10 MB


class Completed(NamedTuple):
    """A subprocess that has ended: its exit status (negative: the signal) and the first MiB of its output."""

    status: int
    output: str


def run(argv: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None) -> Completed:
    """Run a program to its end, without a shell and with empty standard input.

    Raises:
        SystemFault: The program cannot be started, or was killed with its children after `timeout_s`.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=_find_directory(),
            start_new_session=True,
        )
    except OSError as error:
        raise SystemFault(f"cannot start {argv[0]}: {error.strerror}; install it or set its path") from error
    # The end of the block closes the pipe, which a child in another session could hold open for ever.
    with process:
        try:
            deadline = time.monotonic() + timeout_s
            output = _read_to_end(cast(IO[bytes], process.stdout).fileno(), deadline, OUTPUT_BYTES)
            process.wait(time_left(deadline))
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise SystemFault(f"{argv[0]} gave no result in {timeout_s:g} s and was killed") from error
    return Completed(process.returncode, output.decode("utf-8", "backslashreplace"))


def _find_directory() -> str | None:
    """Return where to run a program: here, or in / where this directory is gone, or closed to our user.

    HAProxy 3.0 checks no configuration in such a directory: it cannot get back to it.
    """
    try:
        return None if os.access(os.getcwd(), os.X_OK) else "/"
    except OSError:
        return "/"


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, as by SIGSTOP or a debugger."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read(4096).rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:  # there is no such process
        return False


class Fed:
    """A program that runs beside this one and is fed on its standard input; its end tells it to end.

    Args:
        argv: The program and its arguments; no shell. Its output goes where ours goes.

    Raises:
        SystemFault: It cannot be started.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            raise SystemFault(f"cannot start {argv[0]}: {error.strerror}") from error
        self._stdin = cast(IO[bytes], self._process.stdin)
        os.set_blocking(self._stdin.fileno(), False)

    def feed(self, line: bytes) -> bool:
        """Give it a line of at most 4096 bytes (PIPE_BUF) without waiting; return whether all of it was taken."""
        try:
            return os.write(self._stdin.fileno(), line) == len(line)
        except OSError:  # it does not read, or has ended
            return False

    def read_status(self) -> int | None:
        """Return its exit status, None while it runs."""
        return self._process.poll()

    def stop(self, timeout_s: float) -> None:
        """End its input and wait for its end; kill it after `timeout_s`."""
        self._stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Dependent:
    """A program that runs beside this one and never outlives it: the kernel kills it when this process ends in any way.

    `setpriv` asks the kernel for that, and gives it its user. It has to be started by the thread that lives longest.

    Args:
        argv: The program and its arguments; no shell.
        user: `UID:GID` of the user that it becomes; "" for ours.
        descriptors: Those that it inherits, under the same numbers.
        environ: Its environment.

    Raises:
        SystemFault: It cannot be started.
    """

    def __init__(self, argv: Sequence[str], user: str, descriptors: Sequence[int], environ: Mapping[str, str]) -> None:
        uid, _, gid = user.partition(":")
        become = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"] if user else []
        self._readable, writable = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._readable, False)
        try:
            words = ["setpriv", "--pdeathsig=KILL", *become, "--", *argv]
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=writable,
                stderr=writable,
                env=environ,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._readable)
            raise SystemFault(f"cannot start setpriv: {error.strerror}; install it (package util-linux)") from error
        finally:
            os.close(writable)

    def fileno(self) -> int:
        """Return the descriptor that turns readable when it prints something, or has ended."""
        return self._readable

    def read_output(self) -> bytes:
        """Return up to 64 KiB of what it has printed since the last time, without waiting."""
        try:
            return os.read(self._readable, 65536)
        except BlockingIOError:
            return b""

    def send(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended."""
        self._process.send_signal(number)

    def read_status(self) -> int | None:
        """Return its exit status (negative: the signal), None while it runs."""
        return self._process.poll()

    def close(self) -> None:
        """Kill it if it still runs, and forget it; a second call does nothing."""
        if self._readable < 0:
            return
        self._process.kill()
        self._process.wait()
        os.close(self._readable)
        self._readable = -1


def run_apart(work: Callable[[], bytes], timeout_s: float, memory_bytes: int) -> bytes:
    """Run a function in a child process with limits of time and memory; return what it returns.

    Args:
        work: The function; it must not raise.
        timeout_s: Its time limit.
        memory_bytes: The memory it may use beyond what this process has.

    Raises:
        SystemFault: It exceeded a limit, returned more than `RESULT_BYTES`, or its process died.
    """
    readable, writable = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError as error:
        os.close(readable)
        os.close(writable)
        raise SystemFault(f"cannot start a process: {error.strerror}") from error
    if not pid:
        _be_child(work, writable, timeout_s, memory_bytes)
    os.close(writable)
    try:
        data = _read_to_end(readable, time.monotonic() + timeout_s, RESULT_BYTES + 1)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise SystemFault(f"it gave no result in {timeout_s:g} s") from None
    finally:
        os.close(readable)
        _, status = os.waitpid(pid, 0)
    if status:
        raise SystemFault(f"it died, or needed more than {memory_bytes / 2**20:.0f} MiB of memory")
    if len(data) > RESULT_BYTES:
        raise SystemFault(f"its result is longer than {RESULT_BYTES / 2**20:.0f} MiB")
    return data


def _be_child(work: Callable[[], bytes], writable: int, timeout_s: float, memory_bytes: int) -> NoReturn:
    status = 1
    try:
        signal.set_wakeup_fd(-1)  # it belongs to the parent
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        with open("/proc/self/statm", "rb") as statm:
            used_bytes = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + memory_bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(timeout_s) + 1,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        data = memoryview(work())
        while data:
            data = data[os.write(writable, data) :]
        status = 0
    except MemoryError:
        status = 2
    finally:
        os._exit(status)


def _read_to_end(fd: int, deadline: float, kept_bytes: int) -> bytes:
    """Read until the other end closes; return the first `kept_bytes`. Raise TimeoutError at the deadline."""
    kept = bytearray()
    while True:
        if not select.select([fd], [], [], time_left(deadline))[0]:
            raise TimeoutError
        chunk = os.read(fd, 262144)
        if not chunk:
            return bytes(kept)
        kept += chunk[: kept_bytes - len(kept)]
