"""Serf's handler for orders and questions: put a user event into the inbox, and answer a query from a file.

`handlers/install` makes the executable `handlers/order_event` of this file and the absolute path of an interpreter.
It imports only cheap modules, because Serf runs handlers one at a time and waits for each. It judges nothing: the
daemon checks who has sent an order, and writes what is answered.
"""

import os
import sys

from serf_haproxy import errors
from serf_haproxy.serf import answers, handling, inbox, wake

_MOST_BYTES = inbox.MOST_BYTES + 2  # with the line feed that Serf adds, and one that shows that it is too long


def main() -> int:
    """Handle one event or query; return 0, 100 for invalid input or 111 for a system failure."""
    wake_fifo = os.environ.get("SERF_HAPROXY_WAKE_FIFO") or "/run/serf-haproxy/wake"
    home = os.path.dirname(wake_fifo)
    kind = os.environ.get("SERF_EVENT")
    try:
        if kind == "user" and os.environ.get("SERF_USER_EVENT") == inbox.EVENT:
            inbox.put(os.path.join(home, "inbox"), handling.read_input(_MOST_BYTES).rstrip(b"\n"))
            wake.wake(wake_fifo, wake.ORDER_WORD)
        elif kind == "query":
            name = os.environ.get("SERF_QUERY_NAME", "")
            os.write(1, answers.find(os.path.join(home, "answers"), name, handling.read_input(_MOST_BYTES)))
        else:
            raise errors.InputError(f"register this handler for user:{inbox.EVENT} and {answers.FILTERS} alone")
    except errors.SerfHaproxyError as error:
        return handling.complain("order_event", error)
    except OSError as error:
        return handling.complain("order_event", errors.SystemFault(f"cannot answer: {error.strerror}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
