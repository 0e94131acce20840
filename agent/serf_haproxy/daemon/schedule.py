"""When the next pass is due: all due times of the daemon. Pure; the caller passes in its monotonic clock, seconds."""

import math
from typing import NamedTuple

from serf_haproxy.control.outcome import Outcome, Pause, Verdict
from serf_haproxy.settings import Settings

RETRY_CHEAP_MAX_S = 10.0  # a retry that does no harm is made soon: a template may have been corrected

_RETRY_FIRST_S = 0.5
_VERIFY_S = 1.0  # after a correction the roster is soon asked once more


class Intervals(NamedTuple):
    """The settings that a schedule needs.

    Attributes:
        quiet_s: Quiet time after a wake before a pass.
        max_wait_s: Longest wait for that quiet time.
        resync_s: Interval at which Serf's roster is asked.
        reload_s: Shortest time between two reloads.
        retry_max_s: Longest pause before a failed reload is tried again.
    """

    quiet_s: float
    max_wait_s: float
    resync_s: float
    reload_s: float
    retry_max_s: float

    @classmethod
    def choose(cls, settings: Settings) -> "Intervals":
        """Return those that the operator has chosen."""
        return cls(
            settings.quiet_s,
            settings.max_wait_s,
            settings.resync_interval_s,
            settings.reload_interval_s,
            settings.retry_max_s,
        )


class Schedule:
    """The due times. Many wakes become one pass: after a quiet time, and after a longest wait at the latest."""

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals
        self._first_wake_s: float | None = None
        self._last_wake_s = 0.0
        self._resync_at_s = 0.0  # when to ask Serf
        self._pass_at_s = 0.0  # the latest time of the next pass, whether or not Serf answers
        self._retry_at_s: float | None = None
        self._reload_at_s = 0.0  # no reload before this
        self._failed_reload: Outcome | None = None
        self._failure_count = 0

    def wake(self, now_s: float) -> None:
        """Note a wake."""
        self._last_wake_s = now_s
        if self._first_wake_s is None:
            self._first_wake_s = now_s

    def ask_at(self, at_s: float) -> None:
        """Ask Serf at this time: at once after a hint, later after a failure."""
        self._resync_at_s = at_s

    def due_s(self) -> float:
        """Return when something is due next."""
        return min(self._resync_at_s, self._pass_due_s())

    def is_resync_due(self, now_s: float, is_serf_up: bool) -> bool:
        """Return whether to ask Serf now.

        A wake asks too while Serf is up: an event cannot tell a comma inside a tag from one between two, and may be
        older than what Serf knows by now.
        """
        return now_s >= self._resync_at_s or (is_serf_up and now_s >= self._wake_due_s())

    def is_pass_due(self, now_s: float) -> bool:
        """Return whether a pass is due now even if Serf cannot be asked."""
        return now_s >= self._pass_due_s()

    def begin(self, now_s: float) -> Pause:
        """Note that a pass begins, which answers all wakes so far; return until when it must not reload."""
        self._first_wake_s = self._retry_at_s = None
        self._pass_at_s = now_s + self._intervals.resync_s
        return Pause(self._reload_at_s if self._reload_at_s > now_s else 0.0, self._failed_reload)

    def end(self, now_s: float, outcome: Outcome) -> None:
        """Plan what follows from the outcome of a pass."""
        self._plan_retry(now_s, outcome)
        self._pass_at_s = now_s + self._intervals.resync_s
        if outcome.has_roster:
            self._resync_at_s = self._pass_at_s  # one pass for both, however long this one took
        if outcome.corrected_count:
            self._resync_at_s = min(self._resync_at_s, now_s + _VERIFY_S)
        if outcome.again_s is not None:
            again_s = now_s + outcome.again_s
            self._retry_at_s = min(again_s, self._retry_at_s or again_s)

    def fail(self, now_s: float) -> None:
        """Plan the next try after a pass that ended with an error; Serf is not asked before that either."""
        self._resync_at_s = max(self._resync_at_s, self._retry(now_s, RETRY_CHEAP_MAX_S))

    def failure_pause_s(self) -> float:
        """Return the pause after the last failure, which grows with each in a row."""
        return min(RETRY_CHEAP_MAX_S, _RETRY_FIRST_S * 2.0 ** min(self._failure_count, 20))

    def _plan_retry(self, now_s: float, outcome: Outcome) -> None:
        """Plan when to try again what failed, and when there may be another reload."""
        if not outcome.is_costly:
            if outcome.has_reloaded or self._failed_reload:
                self._reload_at_s = now_s + self._intervals.reload_s
            self._failed_reload = None
            if outcome.verdict in (Verdict.REJECTED, Verdict.UNCONFIRMED):
                self._retry(now_s, RETRY_CHEAP_MAX_S)
            else:
                self._failure_count = 0
        elif outcome.has_reloaded:
            self._failed_reload = outcome
            self._reload_at_s = self._retry(now_s, self._intervals.retry_max_s)

    def _retry(self, now_s: float, longest_s: float) -> float:
        """Plan the next try with a growing pause; return its time."""
        self._failure_count += 1
        self._retry_at_s = now_s + min(longest_s, _RETRY_FIRST_S * 2 ** min(self._failure_count, 20))
        return self._retry_at_s

    def _wake_due_s(self) -> float:
        if self._first_wake_s is None:
            return math.inf
        return min(self._last_wake_s + self._intervals.quiet_s, self._first_wake_s + self._intervals.max_wait_s)

    def _pass_due_s(self) -> float:
        return min(self._pass_at_s, self._wake_due_s(), math.inf if self._retry_at_s is None else self._retry_at_s)


def make_schedule(settings: Settings) -> Schedule:
    """Return the schedule that the settings describe."""
    return Schedule(Intervals.choose(settings))
