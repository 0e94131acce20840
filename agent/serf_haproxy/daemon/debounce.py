"""Quiet time bounded by a maximum wait: pure, the clock is passed in."""


class Debounce:
    """Turns many wakes into one pass: after `quiet_s` without a further wake, `max_wait_s` after the first at most."""

    def __init__(self, quiet_s: float, max_wait_s: float) -> None:
        self._quiet_s = quiet_s
        self._max_wait_s = max_wait_s
        self._first_s: float | None = None
        self._last_s = 0.0

    def wake(self, now_s: float) -> None:
        """Note a wake at a time of the caller's monotonic clock, seconds."""
        self._last_s = now_s
        if self._first_s is None:
            self._first_s = now_s

    def due_s(self) -> float | None:
        """Return the time at which the pass is due; None when nothing woke."""
        if self._first_s is None:
            return None
        return min(self._last_s + self._quiet_s, self._first_s + self._max_wait_s)

    def clear(self) -> None:
        """Forget all wakes: a pass begins."""
        self._first_s = None
