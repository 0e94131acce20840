"""Warns when a pass does not end: everything has a time limit except calls that wait for a disk."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

log = logging.getLogger("serf-haproxy")


class Watchdog:
    """A thread that watches the clock while a pass runs. It starts early: later a thread may not start any more."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._until_s: float | None = None
        self._step = ""
        self._on_step: Callable[[], object] = bool
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def watching(self, limit_s: float, on_step: Callable[[], object] = bool) -> Iterator[Callable[[str], None]]:
        """Warn once when a block has not ended in time; yield the function to call after each step.

        Args:
            limit_s: How long the block may last.
            on_step: Called after each step, by the thread of the block.
        """
        self._step, self._on_step = "begun", on_step
        self._set(time.monotonic() + limit_s)
        try:
            yield self._note
        finally:
            self._set(None)

    def _note(self, step: str) -> None:
        self._step = step
        self._on_step()

    def _set(self, until_s: float | None) -> None:
        with self._changed:
            self._until_s = until_s
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while True:
                left_s = None if self._until_s is None else self._until_s - time.monotonic()
                if left_s is None or left_s > 0:
                    self._changed.wait(left_s)
                    continue
                text = (
                    "a pass exceeds its time limit, its last step was '%s': does a disk hang? HAProxy keeps its servers"
                )
                log.warning(text, self._step)
                self._until_s = None
