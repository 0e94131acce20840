"""The web process: the daemon starts it and tells it of each pass. No pass waits for it."""

import logging
import sys
import time

from serf_haproxy.control.outcome import Outcome
from serf_haproxy.errors import SystemFault
from serf_haproxy.settings import Settings
from serf_haproxy.system.processes import Fed
from serf_haproxy.web.news import ERROR, News, format_news

log = logging.getLogger("serf-haproxy")

# -P: a file of the working directory is never taken for a module.
_ARGV = (sys.executable, "-P", "-m", "serf_haproxy", "web")
_PAUSE_S, _PAUSE_MAX_S = 0.5, 60.0
_STEADY_S = 60.0  # after so long the next start comes soon again
_STOP_S = 2.0
_PENDING_COUNT = 50


class WebProcess:
    """The web process, where it is wanted; it starts with the first look.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: Fed | None = None
        self._started_s = self._start_at_s = -_STEADY_S
        self._pause_s = _PAUSE_S
        self._lost_count = self._command_count = 0
        self._last = News(0.0, 0.0, "")
        self._pending: list[News] = []  # while it does not run

    def look(self, *, is_serf_up: bool) -> None:
        """Start the process where it is wanted and does not run; after its end, with pauses that grow.

        Args:
            is_serf_up: Whether there is a connection to the Serf agent, which is told when it changes.
        """
        if not self._settings.web_bind:
            return
        now_s = time.monotonic()
        if is_serf_up != self._last.is_serf_up and self._last.verdict:
            self._send(self._last._replace(is_serf_up=is_serf_up, is_repeated=True))
        if self._process is not None and (status := self._process.read_status()) is not None:
            self.stop()
            self._pause_s = _PAUSE_S if now_s - self._started_s > _STEADY_S else min(2 * self._pause_s, _PAUSE_MAX_S)
            self._start_at_s = now_s + self._pause_s
            log.error("%s", f"the web process ended with status {status}; it starts again in {self._pause_s:g} s")
        if self._process is None and now_s >= self._start_at_s:
            self._start(now_s)

    @property
    def is_missing(self) -> bool:
        """Whether the process is wanted and does not run."""
        return bool(self._settings.web_bind) and self._process is None

    def tell(self, outcome: Outcome, began_s: float, command_count: int, *, is_serf_up: bool) -> None:
        """Tell of a pass that has just ended.

        Args:
            outcome: What it came to.
            began_s: When it began, seconds since the epoch.
            command_count: Commands that this reconciler has given to HAProxy's runtime socket in all.
            is_serf_up: Whether there is a connection to the Serf agent.
        """
        # Another reconciler begins at zero.
        before_count = self._command_count if self._command_count <= command_count else 0
        self._command_count = command_count
        self._send(
            self._last._replace(
                began_s=began_s,
                ended_s=time.time(),
                verdict=outcome.verdict.value,
                is_in_force=outcome.is_in_force,
                has_reloaded=outcome.has_reloaded,
                command_count=command_count - before_count,
                corrected_count=outcome.corrected_count,
                drift_count=len(outcome.drifts),
                is_repeated=False,
                is_serf_up=is_serf_up,
            )
        )

    def tell_error(self) -> None:
        """Tell of a pass that ended with an error."""
        now_s, last = time.time(), self._last
        self._send(News(now_s, now_s, ERROR, is_serf_up=last.is_serf_up, are_settings_good=last.are_settings_good))

    def follow(self, settings: Settings | None) -> None:
        """Go on with other settings; None: they could not be read, and stay as they were."""
        self._last = self._last._replace(are_settings_good=settings is not None)
        if settings is not None and settings != self._settings:
            self.stop()
            self._settings, self._start_at_s = settings, 0.0

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.stop(_STOP_S)
            self._process = None

    def _start(self, now_s: float) -> None:
        try:
            self._process = Fed(_ARGV)
        except SystemFault as error:
            self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)
            self._start_at_s = now_s + self._pause_s
            log.error("%s", f"no web process: {error}")
            return
        self._started_s, self._lost_count = now_s, 0
        pending, self._pending = self._pending, []
        if not pending and self._last.verdict:
            pending = [self._last._replace(is_repeated=True)]
        for news in pending:
            self._feed(news)

    def _send(self, news: News) -> None:
        self._last = news
        if self._process is not None:
            self._feed(news)
        elif self._settings.web_bind:
            self._pending = [*self._pending[1 - _PENDING_COUNT :], news]

    def _feed(self, news: News) -> None:
        line = format_news(news._replace(lost_count=self._lost_count))
        is_taken = self._process is not None and self._process.feed(line)
        self._lost_count = 0 if is_taken else self._lost_count + 1
