"""A machine that is busy with other things cannot measure: wait until it is calm, and ask for short turns."""

import contextlib
import ctypes
import os
import platform
import struct
import time

from measure import percentile

_STEP_S, _STEP_COUNT = 0.005, 300
_LATE_S = 0.004  # a cell's own limit is higher
_SLICE_NS = 100_000
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the numbers of the system call, for which Python has no function


def ask_short_turns() -> None:
    """Ask the scheduler to give this process, and those that it starts, short turns and therefore early ones.

    They get no more time than others. Linux before 6.12 does not know this and refuses, which changes nothing.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        # sched(7), struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, two clamps
        attributes = struct.pack("=IIQiIQQQII", 56, 0, 0, nice, 0, _SLICE_NS, 0, 0, 0, 0)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0)


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
