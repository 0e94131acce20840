"""The tables of sticky clients, which a worker learns from the worker before it, or from another balancer."""

import re

from serf_haproxy.services import SUCCESSOR

# Formats of `show peers`, `show table` and `show info` (HAProxy's Management Guide, section 9.3).
_PEERS = re.compile(r" disabled=0 flags=0x([0-9a-f]+) ")
_TABLE = re.compile(r"^# table: ([^,]+),.* used:(\d+)", re.MULTILINE)
_UPTIME = re.compile(r"^Uptime_sec: (\d+)", re.MULTILINE)

QUESTION = "show info; show peers; show table"
_TAUGHT = 3  # the flags by which a worker says that it needs to learn neither from its predecessor nor from others
_LEARNING_S = 12  # HAProxy waits 5 seconds for the worker before it, then 5 for another balancer


def is_learning(answer: str) -> bool:
    """Return whether a reload would lose entries of tables: the worker is young, and does not teach its successor yet.

    Args:
        answer: What a worker says to `QUESTION`.
    """
    uptime, flags = _UPTIME.search(answer), _PEERS.search(answer)
    if not uptime or not flags or int(uptime[1]) >= _LEARNING_S or int(flags[1], 16) & _TAUGHT == _TAUGHT:
        return False
    return any(int(used) > 0 for name, used in _TABLE.findall(answer) if name != SUCCESSOR)
