"""Serf's handler for orders and questions: put a user event into the inbox, and answer a query from a file.

`handlers/install` makes the executable `handlers/order_event` of this file and the absolute path of an interpreter.
It imports only cheap modules, because Serf runs handlers one at a time and waits for each. It judges nothing: the
daemon checks who has sent an order, and writes what is answered.
"""

import os
import sys

from serf_haproxy import errors
from serf_haproxy.serf import answers, inbox, wake


def main() -> int:
    """Handle one event or query; return 0, 100 for invalid input or 111 for a system failure."""
    wake_fifo = os.environ.get("SERF_HAPROXY_WAKE_FIFO") or "/run/serf-haproxy/wake"
    home = os.path.dirname(wake_fifo)
    kind = os.environ.get("SERF_EVENT")
    try:
        if kind == "user" and os.environ.get("SERF_USER_EVENT") == inbox.EVENT:
            inbox.put(os.path.join(home, "inbox"), read_payload().rstrip(b"\n"))
            wake.wake(wake_fifo, wake.ORDER_WORD)
        elif kind == "query":
            name = os.environ.get("SERF_QUERY_NAME", "")
            os.write(1, answers.find(os.path.join(home, "answers"), name, read_payload()))
        else:
            raise errors.InputError(f"register this handler for user:{inbox.EVENT} and {answers.FILTERS} alone")
    except errors.SerfHaproxyError as error:
        return complain(error)
    except OSError as error:
        return complain(errors.SystemFault(f"cannot answer: {error.strerror}"))
    return 0


def read_payload() -> bytes:
    """Return standard input, cut one byte after the largest payload that Serf can send; b"" when it is closed."""
    chunks = []
    missing = inbox.MOST_BYTES + 2
    try:
        while missing > 0 and (chunk := os.read(0, missing)):
            chunks.append(chunk)
            missing -= len(chunk)
    except OSError:
        return b""
    return b"".join(chunks)


def complain(error: errors.SerfHaproxyError) -> int:
    """Write the error to standard error as one line; return its exit code."""
    try:  # noqa: SIM105 - contextlib is not cheap
        os.write(2, f"order_event: {error}\n".encode("ascii", "backslashreplace"))
    except OSError:
        pass  # standard error is closed
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
