"""Serf's event handler: write each membership event to the node files, then wake the daemon.

`handlers/install` makes the executable `handlers/member_event` of this file and the absolute path of an interpreter.
It imports only cheap modules, because Serf runs handlers one at a time and waits for each.
"""

import os
import sys

from serf_haproxy import errors
from serf_haproxy.serf import events, handling, nodes, wake


def main() -> int:
    """Handle one event; return 0, 100 for invalid input or 111 for a system failure."""
    nodes_dir = os.environ.get("SERF_HAPROXY_NODES_DIR") or "/run/serf-haproxy/nodes"
    wake_fifo = os.environ.get("SERF_HAPROXY_WAKE_FIFO") or "/run/serf-haproxy/wake"
    try:
        event = events.read_event(os.environ.get("SERF_EVENT"), handling.read_input(events.PAYLOAD_BYTES + 1))
    except errors.InputError as error:
        return handling.complain("member_event", error)
    exit_code = max(
        [handling.complain("member_event", errors.InputError(reason)) for reason in event.refused], default=0
    )
    status = events.STATUS_OF_EVENT[event.kind]
    changed = False
    for member in event.members:
        try:
            if status is None:
                changed |= nodes.forget(nodes_dir, member.name)
            else:
                changed |= nodes.record(nodes_dir, status, member)
        except errors.SystemFault as error:
            exit_code = handling.complain("member_event", error)
    try:
        if changed:
            wake.wake(wake_fifo)
    except errors.SystemFault as error:
        exit_code = handling.complain("member_event", error)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
