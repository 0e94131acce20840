"""A machine that is busy with other things cannot measure: wait until it is calm."""

import time

from measure import percentile

_STEP_S, _STEP_COUNT = 0.005, 300
_LATE_S = 0.002  # a cell's own limit is higher


def is_calm() -> bool:
    """Return whether this process wakes up in time from 300 short pauses, but for one of a hundred."""
    late_s = []
    for _ in range(_STEP_COUNT):
        due_s = time.monotonic() + _STEP_S
        time.sleep(_STEP_S)
        late_s.append(time.monotonic() - due_s)
    return percentile(late_s, 99) < _LATE_S


def wait_calm(limit_s: float) -> bool:
    """Wait until the machine is calm; return False if it is not within a time."""
    deadline = time.monotonic() + limit_s
    pause_s = 0.5
    while not is_calm():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 4.0)
    return True
