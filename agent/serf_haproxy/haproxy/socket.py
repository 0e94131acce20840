"""One exchange with a CLI socket of HAProxy's: the runtime socket or the master's."""

import socket
import time
from typing import NamedTuple

from serf_haproxy.errors import HaproxyFault, HaproxySilence
from serf_haproxy.system.deadlines import time_left


class Limits(NamedTuple):
    """How long to wait for an answer.

    Attributes:
        info_s: For `show info`, which takes a worker milliseconds, seconds.
        ask_s: For all else, seconds.
    """

    info_s: float = 2.0
    ask_s: float = 5.0


PATIENT = Limits()
PROMPT = Limits(0.45, 0.9)  # of a command: a person waits, and HAProxy may be frozen
BRIEF = Limits(0.05, 0.1)  # of a command that has just found that it does not answer
ANSWER_BYTES = 64 * 1024 * 1024  # `show stat` of 100,000 servers takes 30 MB


def ask(socket_path: str, command: str, timeout_s: float) -> str:
    """Send one line, which may end in a payload of more lines, to a CLI socket; return the whole answer.

    The write side is closed after the line: otherwise HAProxy's master keeps the connection open for ever
    (HAProxy's Management Guide, section 9.3).

    Raises:
        HaproxySilence: The answer did not end within `timeout_s`, or too many questions wait for one already.
        HaproxyFault: No process listens on the socket, or the answer is too long.
    """
    deadline = time.monotonic() + timeout_s
    said = command.partition("\n")[0]  # what follows may be a private key
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
            size_bytes = 0
            while size_bytes <= ANSWER_BYTES:
                cli.settimeout(time_left(deadline))
                chunk = cli.recv(262144)
                if not chunk:
                    return b"".join(chunks).decode("utf-8", "backslashreplace")
                chunks.append(chunk)
                size_bytes += len(chunk)
        except (TimeoutError, BlockingIOError) as error:  # BlockingIOError: the listener's queue is full
            raise HaproxySilence(f"{socket_path}: no answer to {said!a} in {timeout_s:g} s") from error
        except OSError as error:
            raise HaproxyFault(f"{socket_path}: {error.strerror or error}; does HAProxy run?") from error
    raise HaproxyFault(f"{socket_path}: the answer to {said!a} is longer than {ANSWER_BYTES} bytes")
