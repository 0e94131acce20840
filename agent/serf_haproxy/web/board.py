"""What is shown at this moment: the last reading, and what changes of it for the pages that are open."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serf_haproxy.control.history import Happening, History, Tail, Wanted
from serf_haproxy.control.report import Reader
from serf_haproxy.errors import SystemFault
from serf_haproxy.settings import Settings
from serf_haproxy.show.levels import Level
from serf_haproxy.system.processes import is_stopped
from serf_haproxy.web.mask import compare, mask
from serf_haproxy.web.metrics import Metrics
from serf_haproxy.web.news import News
from serf_haproxy.web.reading import Reading, make_reading
from serf_haproxy.web.scaling import Scales
from serf_haproxy.web.sheet import Sheet
from serf_haproxy.web.story import Line, Story

log = logging.getLogger("serf-haproxy")

_WATCHED_S, _WATCHED_MAX_S, _IDLE_S = 2.0, 5.0, 15.0  # how often it is read while a page is open, and else
_WATCHED_SHARE = 0.01  # of a processor, which readings for a page may take up to that longest pause
_LEAST_S = 0.5  # between two readings
_REST_SHARE = 4  # a reading is followed by a rest of this many times what it took: a fifth of a processor at most
_PATIENCE_S = 2.5  # a HAProxy that does not answer takes longer; what was read before is shown then
_HISTORY_BYTES = 64 * 1024  # of what was before this process started
_QUEUE_COUNT = 4  # messages that a page may be behind
_SILENCE_S = 60.0


def choose_pause_s(used_s: float) -> float:
    """Return how long after a reading for a page the next one comes by itself, by the CPU time that this one took."""
    return min(max(_WATCHED_S, used_s / _WATCHED_SHARE), _WATCHED_MAX_S)


class Board:
    """The last reading, and who watches.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics()
        self.latest: Reading | None = None
        self.config = ""
        self.diff: list[str] = []
        self._settings = settings
        self._reader = Reader(settings)
        self._history = History(settings.state_dir)
        self._tail: Tail | None = None
        self._told: list[Happening] = []  # by the history, and not yet in a reading
        self._live = ""  # the configuration as it is
        self._started_s = time.time()
        self._news: News | None = None
        self._story = Story()
        self._sheet = Sheet()
        self._scales = Scales()
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._hint = asyncio.Event()
        self._arrival = asyncio.Event()
        self._fault = ""
        self._is_closed = False

    def hear(self, news: News) -> None:
        """Note what the daemon tells of a pass, and read soon."""
        self.metrics.count_pass(news)
        self._news = news
        self._story.hear(news)
        self._hint.set()

    def is_alive(self) -> bool:
        """Return whether the daemon makes passes: one is due at least at the interval at which Serf is asked.

        It has started this process; one that is stopped, as by SIGSTOP, makes none.
        """
        if is_stopped(os.getppid()):
            return False
        settings = self._settings
        pass_s = settings.check_timeout_s + settings.reload_timeout_s + _SILENCE_S
        heard_s = self._news.ended_s if self._news else self._started_s
        return time.time() - heard_s < settings.resync_interval_s + pass_s

    def is_ready(self) -> bool:
        """Return whether HAProxy answers, and runs what it should as of the last pass."""
        is_up = self.latest is not None and self.latest.report.servers is not None
        return is_up and self._news is not None and self._news.is_in_force

    async def refresh(self, oldest_s: float) -> Reading | None:
        """Return a reading that is not older than this, or the last one if a new one takes too long; None for none."""
        if not self._is_closed and (self.latest is None or time.time() - self.latest.at_s > oldest_s):
            arrival = self._arrival
            self._hint.set()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await arrival.wait()
            except TimeoutError:
                pass
        return self.latest

    def watch(self) -> asyncio.Queue[bytes | None]:
        """Return a queue of messages for a page, the first with all there is; None ends it."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_COUNT)
        self._viewers.add(queue)
        if self.latest is not None:
            queue.put_nowait(self._format(self.latest, self._sheet.list_all(), self._story.lines, is_whole=True))
        self._hint.set()
        return queue

    def leave(self, queue: "asyncio.Queue[bytes | None]") -> None:
        """Forget a page."""
        self._viewers.discard(queue)

    def close(self) -> None:
        """Let no request and no page wait any longer, since the process ends."""
        self._is_closed = True
        self._arrival.set()
        for queue in list(self._viewers):
            self._end(queue)

    async def run(self) -> None:
        """Read now and then, sooner after a pass or for a request, without end."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            while True:
                began_s, used_s = time.monotonic(), time.process_time()
                try:
                    self._take(*await loop.run_in_executor(pool, self._read))
                except SystemFault as error:
                    self._tell(str(error))
                took_s, used_s = time.monotonic() - began_s, time.process_time() - used_s
                await asyncio.sleep(max(_LEAST_S, _REST_SHARE * took_s))
                try:
                    async with asyncio.timeout(choose_pause_s(used_s) if self._viewers else _IDLE_S):
                        await self._hint.wait()
                except TimeoutError:
                    pass
                self._hint.clear()

    def _read(self) -> tuple[Reading, list[Happening]]:
        """Return a new reading, and what has been added to the history since the one before."""
        if self._tail is None:
            self._tail = self._history.follow(Wanted(), _HISTORY_BYTES)
        # First the history: the node files that its decisions follow from are in the report then.
        self._told += self._tail.read()
        report = self._reader.read()
        self._show_config(report.snapshot.live or "")
        told, self._told = self._told, []
        return make_reading(report), told

    def _take(self, latest: Reading, happenings: list[Happening]) -> None:
        """Make a reading the last one, and send the pages what is new in it."""
        is_first, self.latest = self.latest is None, latest
        found = self._story.compare(latest, happenings)
        self.metrics.count_found(found, latest)
        changed = self._sheet.update(latest)
        self._scales.update(latest, happenings)
        self._tell("")
        message = self._format(latest, changed, found.lines, is_whole=is_first) if self._viewers else b""
        for queue in list(self._viewers):
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:  # it does not keep up: it starts anew when it has connected again
                self._end(queue)
        arrival, self._arrival = self._arrival, asyncio.Event()
        arrival.set()

    def _end(self, queue: "asyncio.Queue[bytes | None]") -> None:
        self.leave(queue)
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(None)

    def _format(self, latest: Reading, rows: dict[str, Any], lines: Iterable[Line], *, is_whole: bool) -> bytes:
        document, news = latest.document, self._news
        return json.dumps(
            {
                "is_whole": is_whole,
                "at_s": latest.at_s,
                "self_name": document["self_name"],
                "verdict": document["verdict"],
                "reason": document["reason"],
                "passed_s": document["at_s"],
                "level": document["level"],
                "findings": [one for one in document["findings"] if one["level"] != Level.OK.word],
                "is_haproxy_up": latest.report.servers is not None,
                "is_serf_up": news.is_serf_up if news else None,
                "services": self._sheet.list_services(is_whole=is_whole),
                "scales": self._scales.list_all(is_whole=is_whole),
                "lines": [line._asdict() | {"way": line.way and line.way._asdict()} for line in lines],
                "diff": self.diff,
                "orders": document["orders"],
                "can_order": self._settings.web_bind.startswith("/"),
                **rows,
            },
            separators=(",", ":"),
        ).encode()

    def _show_config(self, live: str) -> None:
        """Show a configuration without its secrets, and what was changed in it."""
        if live == self._live:
            return
        before, self._live, self.config = self.config, live, mask(live)
        if before and before != self.config:
            self.diff = compare(before, self.config)

    def _tell(self, fault: str) -> None:
        if fault and fault != self._fault:
            log.warning("%s", f"the web process cannot read a report: {fault}")
        self._fault = fault
