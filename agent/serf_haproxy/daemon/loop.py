"""The resident: waits for wakes, signals, the clock and Serf's going, and makes one pass at a time."""

import contextlib
import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator

from serf_haproxy.control.outcome import Outcome, Pause, Verdict
from serf_haproxy.control.reconcile import prepare_directories, reconcile
from serf_haproxy.daemon.debounce import Debounce
from serf_haproxy.daemon.watchdog import Watchdog
from serf_haproxy.errors import SerfHaproxyError, SettingsError, SystemFault
from serf_haproxy.serf.client import Link
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.wake import drain, is_open_at, open_fifo
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import locked

log = logging.getLogger("serf-haproxy")

_LEVELS = {
    Verdict.UNCHANGED: logging.DEBUG,
    Verdict.APPLIED: logging.INFO,
    Verdict.RELOADED: logging.INFO,
    Verdict.HELD: logging.WARNING,
    Verdict.UNCONFIRMED: logging.ERROR,
    Verdict.REJECTED: logging.ERROR,
}
_START_S = 0.5  # `status` holds the lock for a moment to look whether it is held
_RETRY_FIRST_S = 0.5
_RETRY_CHEAP_MAX_S = 10.0  # what costs nobody anything is retried soon: a template may have been repaired
_VERIFY_S = 1.0  # after a correction the roster is soon asked once more


class Resident:
    """The resident process; `run` returns when it is told to stop.

    Args:
        load_settings: Reads the settings, at start and on SIGHUP.
        notify_fd: Descriptor that gets a line feed once the first pass is made (s6's notification-fd).
    """

    def __init__(self, load_settings: Callable[[], Settings], notify_fd: int | None = None) -> None:
        self._load_settings = load_settings
        self._notify_fd = notify_fd
        self._settings = load_settings()
        self._debounce = Debounce(self._settings.quiet_s, self._settings.max_wait_s)
        self._link = Link(self._settings)
        self._wake_fd = -1
        self._signals: set[int] = set()
        self._resync_at_s = 0.0
        self._pass_at_s = 0.0  # the latest time for the next pass, whether or not Serf answers
        self._retry_at_s: float | None = None
        self._reload_at_s = 0.0  # no reload before that
        self._failed_reload: Outcome | None = None
        self._failure_count = 0
        self._told: set[str] = set()
        self._watchdog = Watchdog()

    def run(self) -> None:
        """Make passes until SIGTERM or SIGINT; a pass that runs is finished first.

        Raises:
            SystemFault: The directories or the FIFO cannot be made, or another resident runs.
        """
        prepare_directories(self._settings)
        lock = os.path.join(self._settings.state_dir, "resident.lock")
        with locked(lock, _START_S, "another resident"), self._signal_pipe() as signal_fd:
            self._wake_fd = open_fifo(self._settings.wake_fifo)
            self._work(is_first=True)
            self._notify_ready()
            while not self._signals & {signal.SIGTERM, signal.SIGINT}:
                self._wait(signal_fd)
                if signal.SIGHUP in self._signals:
                    self._signals.discard(signal.SIGHUP)
                    self._reload_settings()
                self._work()
            self._link.close()
        log.info("stopped by a signal")

    @contextlib.contextmanager
    def _signal_pipe(self) -> Iterator[int]:
        """Collect signals and make a descriptor readable, so that none is missed between looking and waiting."""
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda caught, _frame: self._signals.add(caught))
        try:
            yield readable
        finally:
            signal.set_wakeup_fd(-1)
            os.close(readable)
            os.close(writable)

    def _wait(self, signal_fd: int) -> None:
        """Sleep until something is due or comes in."""
        with selectors.PollSelector() as selector:  # needs no descriptor, of which there may be none left
            selector.register(signal_fd, selectors.EVENT_READ)
            selector.register(self._wake_fd, selectors.EVENT_READ)
            for connection in self._link.watched():
                selector.register(connection, selectors.EVENT_READ, connection)
            ready = [key for key, _ in selector.select(max(0.0, self._due_s() - time.monotonic()))]
        for key in ready:
            if key.fileobj == signal_fd:
                drain(signal_fd)
            elif key.fileobj == self._wake_fd:
                drain(self._wake_fd)
                self._debounce.wake(time.monotonic())
            elif self._link.look(key.data):
                self._resync_at_s = 0.0
            elif not self._link.is_up():
                self._resync_at_s = self._link.next_try_s()

    def _due_s(self) -> float:
        times = (self._resync_at_s, self._pass_at_s, self._debounce.due_s(), self._retry_at_s)
        return min(at_s for at_s in times if at_s is not None)

    def _work(self, is_first: bool = False) -> None:
        """Ask Serf and make a pass, as far as either is due."""
        now_s = time.monotonic()
        roster = None
        # An event cannot tell a comma inside a tag from one between two, and may be older than what Serf knows by now.
        is_woken = now_s >= (self._debounce.due_s() or math.inf)
        if now_s >= self._resync_at_s or (is_woken and self._link.is_up()):
            roster = self._link.ask()
            self._resync_at_s = now_s + self._settings.resync_interval_s if roster else self._link.next_try_s()
        due_s = [at_s for at_s in (self._pass_at_s, self._debounce.due_s(), self._retry_at_s) if at_s is not None]
        if is_first or roster or now_s >= min(due_s):
            self._pass(roster)

    def _pass(self, roster: Roster | None) -> None:
        self._debounce.clear()
        self._retry_at_s = None
        self._pass_at_s = time.monotonic() + self._settings.resync_interval_s
        # Wakes from here on ask for another pass; those before are answered by this one.
        drain(self._wake_fd)
        try:
            self._mend_places()
            pause = Pause(max(0.0, self._reload_at_s - time.monotonic()), self._failed_reload)
            limit_s = self._settings.check_timeout_s + self._settings.reload_timeout_s
            with self._watchdog.watching(limit_s) as on_step:
                outcome = reconcile(
                    self._settings, lambda: roster or self._link.ask(), bool(roster), on_step, pause=pause
                )
        except SerfHaproxyError as error:
            self._tell(logging.ERROR, {str(error)})
            self._retry(_RETRY_CHEAP_MAX_S)
        except Exception:
            log.exception("a fault of our own; the pass is repeated")
            self._retry(_RETRY_CHEAP_MAX_S)
        else:
            self._follow(outcome)

    def _mend_places(self) -> None:
        """Make directories and FIFO again where somebody removed them; else handlers would write and wake in vain."""
        prepare_directories(self._settings)
        if not is_open_at(self._wake_fd, self._settings.wake_fifo):
            wake_fd = open_fifo(self._settings.wake_fifo)
            os.close(self._wake_fd)
            self._wake_fd = wake_fd

    def _follow(self, outcome: Outcome) -> None:
        """Tell what came of a pass and decide when the next one is due."""
        level = _LEVELS[outcome.verdict]
        if level == logging.INFO:
            log.info("%s", f"{outcome.verdict} {outcome.reason}")
        problems = set(outcome.problems)
        if level > logging.INFO:
            problems.add(f"{outcome.verdict} {outcome.reason}")
        self._tell(max(level, logging.WARNING), problems)
        self._plan_retry(outcome)
        if outcome.again_s is not None:
            again_s = time.monotonic() + outcome.again_s
            self._retry_at_s = min(again_s, self._retry_at_s or again_s)
        if outcome.corrected_count:
            self._resync_at_s = min(self._resync_at_s, time.monotonic() + _VERIFY_S)

    def _plan_retry(self, outcome: Outcome) -> None:
        """Decide when to try again what failed, and when there may be another reload."""
        if not outcome.is_costly:
            if outcome.has_reloaded or self._failed_reload:
                self._reload_at_s = time.monotonic() + self._settings.reload_interval_s
            self._failed_reload = None
            if outcome.verdict in (Verdict.REJECTED, Verdict.UNCONFIRMED):
                self._retry(_RETRY_CHEAP_MAX_S)
            else:
                self._failure_count = 0
        elif outcome.has_reloaded:
            self._failed_reload = outcome
            self._retry(self._settings.retry_max_s)
            self._reload_at_s = self._retry_at_s or 0.0

    def _tell(self, level: int, problems: set[str]) -> None:
        """Log problems that were not there after the pass before."""
        for problem in sorted(problems - self._told):
            log.log(level, "%s", problem)
        self._told = problems

    def _retry(self, longest_s: float) -> None:
        self._failure_count += 1
        pause_s = min(longest_s, _RETRY_FIRST_S * 2 ** min(self._failure_count, 20))
        self._retry_at_s = time.monotonic() + pause_s

    def _reload_settings(self) -> None:
        """Read the settings again and make a pass; wrong ones are told and change nothing."""
        try:
            settings = self._load_settings()
            prepare_directories(settings)
            wake_fd = open_fifo(settings.wake_fifo)
        except (SettingsError, SystemFault) as error:
            log.error("%s", f"the settings stay as they were: {error}")
            return
        os.close(self._wake_fd)
        self._wake_fd = wake_fd
        self._link.close()
        self._settings, self._link = settings, Link(settings)
        self._debounce = Debounce(settings.quiet_s, settings.max_wait_s)
        self._debounce.wake(time.monotonic() - settings.max_wait_s)
        self._resync_at_s = self._reload_at_s = 0.0
        log.info("settings and template are read again")

    def _notify_ready(self) -> None:
        if self._notify_fd is not None:
            os.write(self._notify_fd, b"\n")
            os.close(self._notify_fd)
            self._notify_fd = None
