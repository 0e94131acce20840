"""What Serf executes on every membership event: write down what it said, then wake the daemon.

The executable `handlers/member_event` is this file behind an absolute interpreter path (`handlers/install`).
It imports the cheap set alone, because Serf runs its handlers one at a time and waits for each.
"""

import os
import sys

from serf_haproxy import errors
from serf_haproxy.serf import events, nodes, wake


def main() -> int:
    """Handle one event; return 0, 100 for wrong input or 111 for a system failure."""
    nodes_dir = os.environ.get("SERF_HAPROXY_NODES_DIR") or "/run/serf-haproxy/nodes"
    wake_fifo = os.environ.get("SERF_HAPROXY_WAKE_FIFO") or "/run/serf-haproxy/wake"
    try:
        event = events.read_event(os.environ.get("SERF_EVENT"), read_payload())
    except errors.InputError as error:
        return complain(error)
    exit_code = max([complain(errors.InputError(reason)) for reason in event.refused], default=0)
    status = events.STATUS_OF_EVENT[event.kind]
    changed = False
    for member in event.members:
        try:
            if status is None:
                changed |= nodes.forget(nodes_dir, member.name)
            else:
                changed |= nodes.record(nodes_dir, status, member)
        except errors.SystemFault as error:
            exit_code = complain(error)
    try:
        if changed:
            wake.wake(wake_fifo)
    except errors.SystemFault as error:
        exit_code = complain(error)
    return exit_code


def read_payload() -> bytes:
    """Return all of standard input, but little more than the most that Serf can send; b"" when it is closed."""
    chunks = []
    missing = events.PAYLOAD_BYTES + 1
    try:
        while missing > 0 and (chunk := os.read(0, min(missing, 65536))):
            chunks.append(chunk)
            missing -= len(chunk)
    except OSError:
        return b""
    return b"".join(chunks)


def complain(error: errors.SerfHaproxyError) -> int:
    """Put one line on standard error; return the exit code that goes with it."""
    try:  # noqa: SIM105 - contextlib is not cheap
        os.write(2, f"member_event: {error}\n".encode("ascii", "backslashreplace"))
    except OSError:
        pass  # nobody listens; what remains is to be done all the same
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
