"""When to look at HAProxy again, which does not report that a server goes up or down. Pure."""

from collections.abc import Collection

from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.events import ALIVE

_LOOK_S, _LOOK_MAX_S = 0.25, 10.0  # often at first
_DAMPED_LOOK_S = 2.0


def list_looks(snapshot: Snapshot, notable: Collection[Entry]) -> list[float]:
    """Return after how many seconds to look at HAProxy again, where what it sees changes the decision.

    The pauses grow with the time since something last happened to these nodes. A time in the future, from before the
    clock was set back, does not count.
    """
    up, looks_s = snapshot.view.up, []
    if up is None or not notable:
        return []
    if any(entry.state is State.DAMPED for entry in notable):
        looks_s.append(_DAMPED_LOOK_S)
    last = [entry for entry in notable if entry.state is State.LAST]
    idle = [entry for entry in notable if entry.server and entry.server.weight == 0]
    if last or any(entry.server.key in up for entry in idle if entry.server):
        times_ns = [entry.since_ns or 0 for entry in (*last, *idle)]
        looks_s.append(find_pause(times_ns + (list_news(snapshot) if last else []), snapshot.at_ns))
    return looks_s


def list_news(snapshot: Snapshot) -> list[int]:
    """Return when each living member was last heard of, nanoseconds since the epoch."""
    return [file.mtime_ns for file in snapshot.files.values() if file.status == ALIVE]


def find_pause(times_ns: list[int], now_ns: int) -> float:
    """Return after how many seconds to look again, given when something last happened."""
    age_s = (now_ns - max(time_ns for time_ns in (*times_ns, 0) if time_ns <= now_ns)) / 1e9
    return min(_LOOK_MAX_S, max(_LOOK_S, age_s / 4))
