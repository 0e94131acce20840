"""What the supervisor of the daemon is told: s6 by a descriptor, systemd by its notification socket."""

import os

from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.serf.printing import printable
from serf_haproxy.system.notify import Notifier

_LINE = 300  # characters


class Bulletin:
    """Tells the supervisor that the daemon is ready, alive, and how it is.

    Args:
        notifier: Tells systemd: it is ready when HAProxy first runs what it should, or a pause keeps that from being
            changed. Until then the start goes on, and systemd waits as long as the loop lives.
        notify_fd: Descriptor that gets a line feed after the first pass, whatever came of it (s6's notification-fd): s6
            starts the Serf agent then.
    """

    def __init__(self, notifier: Notifier, notify_fd: int | None = None) -> None:
        self._notifier = notifier
        self._notify_fd = notify_fd
        self._news = "the first pass is under way"

    def tell_first_pass(self) -> None:
        """Tell s6 that the first pass has ended."""
        if self._notify_fd is not None:
            os.write(self._notify_fd, b"\n")
            os.close(self._notify_fd)
            self._notify_fd = None

    def beat(self) -> None:
        """Tell that the loop is alive; a step of a pass is a sign of life too."""
        self._notifier.beat()

    def follow(self, outcome: Outcome) -> None:
        """Take note of a pass that has ended."""
        lasting = "".join(f"; {one.name}: {one.reason}" for one in outcome.conditions)
        self._news = f"{outcome.verdict} {outcome.reason}{lasting}"
        if outcome.is_in_force or outcome.verdict is Verdict.PAUSED:
            self._notifier.tell_ready()

    def fail(self, reason: str) -> None:
        """Take note of a pass that ended with an error."""
        self._news = f"ERROR {reason}"

    def look(self, *, is_serf_up: bool, is_web_missing: bool) -> None:
        """Tell that the loop is alive, and how the daemon is where that has changed."""
        serf = "" if is_serf_up else "; no connection to Serf"
        web = "; the web process does not run" if is_web_missing else ""
        self._notifier.tell_status(printable(f"{self._news}{serf}{web}", _LINE))
        self._notifier.beat()

    def stop(self) -> None:
        """Tell that the daemon ends."""
        self._notifier.tell_stopping()
