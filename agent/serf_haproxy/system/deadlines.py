"""Deadlines on the monotonic clock."""

import time


def time_left(deadline: float) -> float:
    """Return the seconds until a time of the monotonic clock.

    Raises:
        TimeoutError: That time has passed.
    """
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
