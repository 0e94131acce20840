#!/opt/webapp/bin/python -I
"""Wait until this container's web application, whose node leaves the cluster, may stop.

Usage: linger.py NODE LEFT_MS < MEMBERS, lines of `ask members` with the nodes of the same role

LEFT_MS is when the leave began, in milliseconds since the machine started: all times count from then, so that a slow
start of this program delays nothing. The application serves for APP_GRACE_S in any case. Then it serves on while
requests or health checks arrive from other machines: a balancer that has other servers sends neither. APP_GRACE_MAX_S
is the limit. Where all nodes leave at once and all are needed, one has to go before the limit, so that its successor
can relieve the others: that is the first one by name, after a third of the limit, if another one still accepts
connections.

One that is still needed when it has to go answers health checks with 503 for its last RETIRE_S, and serves on
meanwhile. So balancers send it no request that would meet a closed door.

One that is too busy to answer in time is taken as needed.

Exit code: 0 when it may stop, 1 when the application cannot be asked.
"""

import contextlib
import http.client
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

QUIET_S = 2.5  # longer than two health checks
PAUSE_S = 0.25
LEAST_S = 0.1
RETIRE_S = 2.0  # a balancer takes a server out after two failed checks, 1.25 s
ANSWER_S = 3.0
PEER_S, PEER_COUNT = 0.5, 5  # time limit of a connection to another node, and how many are tried


def ask(path: str, left_s: float, method: str = "GET") -> Any:
    """Ask the application of this container, for not much longer than the time that is left; None without an answer."""
    host, port = os.environ.get("APP_HOST") or "0.0.0.0", os.environ.get("APP_PORT") or "3000"  # noqa: S104
    place = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    connection = http.client.HTTPConnection(place, int(port), timeout=max(LEAST_S, min(ANSWER_S, left_s)))
    with contextlib.closing(connection), contextlib.suppress(TimeoutError):
        connection.request(method, path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(answer.status)
        return json.load(answer)
    return None


def find_peers(name: str, lines: Iterable[str]) -> list[tuple[str, int]]:
    """Return where the other nodes listen, if this node is the first one by name; else none."""
    peers = {}
    for line in lines:
        if match := re.match(r"(\S+)  \[?([0-9A-Fa-f:.]+?)\]?:\d+  \w+  (?:\S*,)?port=(\d{1,5})(?:,|$)", line):
            peers[match[1]] = match[2], int(match[3])
    others = {other: place for other, place in peers.items() if other != name}
    return list(others.values())[:PEER_COUNT] if others and name < min(others) else []


def is_serving(place: tuple[str, int]) -> bool:
    """Return whether another node accepts connections."""
    with contextlib.suppress(OSError, OverflowError), socket.create_connection(place, PEER_S):
        return True
    return False


def wait(name: str, started_s: float, lines: Iterable[str]) -> int:
    """Wait, with all times counted from a moment of CLOCK_BOOTTIME; return the exit code."""
    grace_s = float(os.environ.get("APP_GRACE_S") or 3.5)
    limit_s = max(grace_s, float(os.environ.get("APP_GRACE_MAX_S") or 4.5))
    retire_s = RETIRE_S if limit_s - grace_s > RETIRE_S else 0.0
    peers = find_peers(name, lines)

    def left_s(until_s: float) -> float:
        return max(0.0, started_s + until_s - time.clock_gettime(time.CLOCK_BOOTTIME))

    time.sleep(left_s(grace_s))
    try:
        while rest_s := left_s(limit_s - retire_s):
            # For how long no request has arrived from another machine.
            if (told := ask("/idle", rest_s)) and float(told["idle_s"]) >= QUIET_S:
                return 0
            if not left_s(limit_s / 3) and any(map(is_serving, peers)):
                break
            time.sleep(min(PAUSE_S, left_s(limit_s - retire_s)))
        if retire_s:
            ask("/retire", ANSWER_S, "POST")
            time.sleep(retire_s)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(wait(sys.argv[1], int(sys.argv[2]) / 1000, sys.stdin.read().splitlines()))
