"""Serf's event handler: write each membership event to the node files, then wake the daemon.

`handlers/install` makes the executable `handlers/member_event` of this file and the absolute path of an interpreter.
It imports only cheap modules, because Serf runs handlers one at a time and waits for each.
"""

import os
import sys

from serf_haproxy import errors
from serf_haproxy.serf import events, nodes, wake


def main() -> int:
    """Handle one event; return 0, 100 for invalid input or 111 for a system failure."""
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
    """Return standard input, cut one byte after the largest payload that Serf can send; b"" when it is closed."""
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
    """Write the error to standard error as one line; return its exit code."""
    try:  # noqa: SIM105 - contextlib is not cheap
        os.write(2, f"member_event: {error}\n".encode("ascii", "backslashreplace"))
    except OSError:
        pass  # standard error is closed; handle the rest of the event anyway
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
