"""How we talk to other programs: one function for a subprocess, one for HAProxy's CLI; both have a time limit."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serf_haproxy.errors import HaproxyFault, SystemFault

ANSWER_BYTES = 64 * 1024 * 1024  # `show stat` of 100,000 servers takes 30 MB


class Completed(NamedTuple):
    """A subprocess that has ended: its exit status (negative: the signal) and all that it printed."""

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
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise SystemFault(f"{argv[0]} gave no result in {timeout_s:g} s and was killed") from error
    return Completed(process.returncode, output.decode("utf-8", "backslashreplace"))


def ask(socket_path: str, command: str, timeout_s: float) -> str:
    """Send one line to a CLI socket of HAProxy's and return the whole answer.

    The write side is closed after the line: without that HAProxy's master keeps the connection open for ever
    (HAProxy's Management Guide, section 9.3).

    Raises:
        HaproxyFault: Nobody listens there, or the answer did not end within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as cli:
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
