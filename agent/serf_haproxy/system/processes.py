"""How we use what is not ours: a program, HAProxy's CLI, a function that may be wrong; each has a time limit."""

import math
import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NamedTuple, NoReturn, cast

from serf_haproxy.errors import HaproxyFault, SystemFault

ANSWER_BYTES = 64 * 1024 * 1024  # `show stat` of 100,000 servers takes 30 MB
OUTPUT_BYTES = 1024 * 1024  # who reads more than that of a program's words?
RESULT_BYTES = 16 * 1024 * 1024  # a configuration of 100,000 servers takes 10 MB


class Completed(NamedTuple):
    """A subprocess that has ended: its exit status (negative: the signal) and the first MiB of what it printed."""

    status: int
    output: str


def run(argv: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None) -> Completed:
    """Run a program to its end, without a shell, its standard input empty.

    Raises:
        SystemFault: It cannot be started, or was killed with its children after `timeout_s`.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )
    except OSError as error:
        raise SystemFault(f"cannot start {argv[0]}: {error.strerror}; install it or set its path") from error
    # The end of the block closes the pipe, which a child in a session of its own could hold open for ever.
    with process:
        try:
            deadline = time.monotonic() + timeout_s
            output = _read_to_end(cast(IO[bytes], process.stdout).fileno(), deadline, OUTPUT_BYTES)
            process.wait(time_left(deadline))
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise SystemFault(f"{argv[0]} gave no result in {timeout_s:g} s and was killed") from error
    return Completed(process.returncode, output.decode("utf-8", "backslashreplace"))


def run_apart(work: Callable[[], bytes], timeout_s: float, memory_bytes: int) -> bytes:
    """Run a function in a child of this process, where it can neither hang nor eat memory; return what it returns.

    Args:
        work: The function; it raises nothing.
        timeout_s: Its time limit.
        memory_bytes: What it may use beside what this process has.

    Raises:
        SystemFault: It took longer, returned more than `RESULT_BYTES`, or died, for lack of memory most likely.
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
        signal.set_wakeup_fd(-1)  # our parent's
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
    """Read until the other end is closed; return the beginning of it. TimeoutError when it does not end in time."""
    kept = bytearray()
    while True:
        if not select.select([fd], [], [], time_left(deadline))[0]:
            raise TimeoutError
        chunk = os.read(fd, 262144)
        if not chunk:
            return bytes(kept)
        kept += chunk[: kept_bytes - len(kept)]


def ask(socket_path: str, command: str, timeout_s: float) -> str:
    """Send one line to a CLI socket of HAProxy's and return the whole answer.

    The write side is closed after the line: without that HAProxy's master keeps the connection open for ever
    (HAProxy's Management Guide, section 9.3).

    Raises:
        HaproxyFault: Nobody listens there, or the answer did not end within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    try:
        cli = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise HaproxyFault(f"{socket_path}: {error.strerror}") from error
    with cli:
        try:
            cli.settimeout(timeout_s)
            cli.connect(socket_path)
            cli.sendall(command.encode("ascii") + b"\n")
            cli.shutdown(socket.SHUT_WR)
            chunks: list[bytes] = []
            size = 0
            while size <= ANSWER_BYTES:
                cli.settimeout(time_left(deadline))
                chunk = cli.recv(262144)
                if not chunk:
                    return b"".join(chunks).decode("utf-8", "backslashreplace")
                chunks.append(chunk)
                size += len(chunk)
        except TimeoutError as error:
            raise HaproxyFault(f"{socket_path}: no answer to {command!a} in {timeout_s:g} s") from error
        except OSError as error:
            raise HaproxyFault(f"{socket_path}: {error.strerror or error}; does HAProxy run?") from error
    raise HaproxyFault(f"{socket_path}: the answer to {command!a} is longer than {ANSWER_BYTES} bytes")


def time_left(deadline: float) -> float:
    """Return the seconds that are left until a time of the monotonic clock; TimeoutError when none are."""
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
