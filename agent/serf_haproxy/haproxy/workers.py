"""HAProxy's old workers: after a reload each finishes its connections and holds its own memory meanwhile."""

import time
from collections.abc import Iterable
from typing import NamedTuple

import psutil

from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.master import Master


class OldWorkers(NamedTuple):
    """The workers that a reload has replaced and that still run.

    Attributes:
        worker_count: How many.
        memory_bytes: Their resident memory together; shared memory counts for each of them.
        oldest_s: The age of the oldest, seconds; 0 without any.
    """

    worker_count: int
    memory_bytes: int
    oldest_s: float


def measure_old(master: Master) -> OldWorkers | None:
    """Return what the master's old workers use; None when it does not answer."""
    try:
        return measure(master.read_account().old_pids)
    except HaproxyFault:
        return None


def measure(pids: Iterable[int]) -> OldWorkers:
    """Return what the workers with these process ids use; those that have ended do not count."""
    memory_bytes, started_s = 0, []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            memory_bytes += process.memory_info().rss
            started_s.append(process.create_time())
        except psutil.Error:  # it has just ended
            continue
    oldest_s = max(0.0, time.time() - min(started_s)) if started_s else 0.0
    return OldWorkers(len(started_s), memory_bytes, oldest_s)


def complain(old: OldWorkers, limit_count: int) -> str | None:
    """Return a complaint when there are more old workers than allowed, else None."""
    if old.worker_count <= limit_count + 1:  # one more may be about to end
        return None
    size = f"{old.worker_count} old HAProxy workers hold {old.memory_bytes / 2**20:.0f} MiB"
    return f"{size}, {limit_count} are allowed; give the template's global section `mworker-max-reloads {limit_count}`"
