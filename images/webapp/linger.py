#!/opt/webapp/bin/python -I
"""Wait until this container's web application, whose node leaves the cluster, may stop.

Usage: linger.py NODE < MEMBERS, lines of `ask members` with the nodes of the same role

It serves for APP_GRACE_S in any case. Then it serves on while requests or health checks arrive from other machines: a
balancer that has other servers sends neither. APP_GRACE_MAX_S is the limit. Where all nodes leave at once and all are
needed, one has to go before the limit, so that its successor can relieve the others: that is the first one by name,
after a third of the limit, if another one still accepts connections.

One that is still needed when it has to go answers health checks with 503 for its last RETIRE_S, and serves on
meanwhile. So balancers send it no request that would meet a closed door.

Exit code: 0 when it may stop, 1 when the application cannot be asked.
"""

import contextlib
import json
import os
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Iterable
from typing import Any

QUIET_S = 2.5  # longer than two health checks
PAUSE_S = 0.25
RETIRE_S = 2.0  # a balancer takes a server out after two failed checks, 1.25 s
ANSWER_S = 3.0
PEER_S, PEER_COUNT = 0.5, 5  # time limit of a connection to another node, and how many are tried


def ask(path: str, data: bytes | None = None) -> Any:
    """Ask the application of this container, by POST if there is data."""
    host, port = os.environ.get("APP_HOST") or "0.0.0.0", os.environ.get("APP_PORT") or "3000"  # noqa: S104
    place = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{place}:{port}{path}", data, timeout=ANSWER_S) as answer:
        return json.load(answer)


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


def wait(name: str, lines: Iterable[str]) -> int:
    """Wait; return the exit code."""
    started_s = time.monotonic()
    grace_s = float(os.environ.get("APP_GRACE_S") or 3.5)
    limit_s = max(grace_s, float(os.environ.get("APP_GRACE_MAX_S") or 4.5))
    retire_s = RETIRE_S if limit_s - grace_s > RETIRE_S else 0.0
    peers = find_peers(name, lines)
    time.sleep(grace_s)
    try:
        while (waited_s := time.monotonic() - started_s) < limit_s - retire_s:
            # For how long no request has arrived from another machine.
            if float(ask("/idle")["idle_s"]) >= QUIET_S:
                return 0
            if waited_s > limit_s / 3 and any(map(is_serving, peers)):
                break
            time.sleep(min(PAUSE_S, max(0.0, limit_s - retire_s - waited_s)))
        if retire_s:
            ask("/retire", b"")
            time.sleep(retire_s)
    except (OSError, ValueError, KeyError, TypeError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(wait(sys.argv[1], sys.stdin.read().splitlines()))
