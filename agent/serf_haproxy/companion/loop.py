"""The companion: the loop of `serf-haproxy companion`. It looks at the engine's containers, and announces them.

An event is a hint to look, and the work is always the same: read all containers, decide, compare with the nodes. The
one exception is the signal by which an engine begins to stop a container: it does not show in what can be read.
"""

import contextlib
import logging
import math
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

from serf_haproxy.autoscale.executor import ExecutorFault
from serf_haproxy.companion.crew import Crew
from serf_haproxy.companion.docker import Docker, Event, Events, find_signal
from serf_haproxy.companion.law import STARTING, Announcement, Seen, choose, describe, is_ours, judge
from serf_haproxy.companion.probe import list_open
from serf_haproxy.companion.serf_agent import SerfAgent
from serf_haproxy.system.interfaces import list_local_addresses
from serf_haproxy.system.notify import Notifier
from serf_haproxy.system.signals import collecting

log = logging.getLogger("serf-haproxy")

_RESYNC_S = 30.0
_GAP_S = 0.05  # between two looks
_WAITING_S = (0.1, 2.0)  # between two looks while an application does not answer yet: at first, at most
_PATIENCE_S = 10.0  # after which it is said
_OUTAGE_S = (0.25, 30.0)  # between two tries while the engine does not answer: at first, at most
_STEADY_S = 10.0
_BEAT_S = 3.0
_AFTER_STOP_S = 5.0  # an engine kills what has not ended; where it still runs then, the signal was not meant to end it


class Rules(NamedTuple):
    """What an operator says.

    Attributes:
        socket_path: The engine's socket.
        prefix: What each node's name has before its container's.
        most: How many nodes there may be.
    """

    socket_path: str
    prefix: str
    most: int


class Companion:
    """The resident process of `serf-haproxy companion`.

    Args:
        rules: What the operator says.
        crew: The nodes.
        notifier: Tells systemd how it is.
    """

    def __init__(self, rules: Rules, crew: Crew, notifier: Notifier) -> None:
        self._rules, self._crew, self._notifier = rules, crew, notifier
        self._docker = Docker(rules.socket_path)
        self._events: Events | None = None
        self._seen: dict[str, Seen] = {}
        self._stopping: dict[str, tuple[str, float]] = {}  # by number: of which start, and how long it counts
        self._waiting: dict[str, float] = {}  # by number: since when it runs and does not answer
        self._said: dict[str, str] = {}
        self._look_s = 0.0
        self._last_look_s = -math.inf
        self._waiting_pause_s = _WAITING_S[0]
        self._fault_count = 0
        self._steady_s = 0.0

    def run(self) -> None:
        """Announce containers until SIGTERM or SIGINT; then all nodes leave."""
        signals: set[int] = set()
        with collecting(signals) as signal_fd:
            self._notifier.tell_ready()
            while not signals & {signal.SIGTERM, signal.SIGINT}:
                now_s = time.monotonic()
                if signal.SIGHUP in signals:
                    signals.discard(signal.SIGHUP)
                    self._look_s = now_s
                if now_s >= self._look_s:
                    self._survive(now_s)
                pause_s = self._crew.look(time.monotonic())
                self._notifier.beat()
                self._wait(signal_fd, min(pause_s, _BEAT_S, max(0.0, self._look_s - time.monotonic())))
            self._notifier.tell_stopping()
            log.info("%s", "all nodes leave")
            self._close_events()
            self._crew.close()

    def _wait(self, signal_fd: int, pause_s: float) -> None:
        watched: list[Events | SerfAgent] = [*([self._events] if self._events else []), *self._crew.watched()]
        ready, _, _ = select.select([signal_fd, *(one.fileno() for one in watched)], [], [], pause_s)
        if signal_fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(signal_fd, 64)
        if self._events and self._events.fileno() in ready:
            try:
                for event in self._events.read():
                    self._take(event)
            except ExecutorFault as fault:
                self._fail(fault)

    def _survive(self, now_s: float) -> None:
        """Look; a fault is logged once, and pauses grow, also where each second look is good."""
        try:
            if self._events is None:
                self._events = self._docker.follow()  # before the list: what changes meanwhile is then an event
            self._look(now_s)
        except ExecutorFault as fault:
            self._fail(fault)
            return
        if self._fault_count and now_s >= self._steady_s:
            log.info("%s", "the engine answers again")
            self._fault_count = 0
            self._say("engine", "")

    def _fail(self, fault: ExecutorFault) -> None:
        self._close_events()
        pause_s = min(_OUTAGE_S[1], _OUTAGE_S[0] * 2.0 ** min(self._fault_count, 10))
        self._fault_count += 1
        now_s = time.monotonic()
        self._look_s = now_s + pause_s
        self._steady_s = now_s + pause_s + _STEADY_S
        self._say("engine", f"{fault}; nodes stay as they are")

    def _close_events(self) -> None:
        if self._events:
            self._events.close()
        self._events = None

    def _take(self, event: Event) -> None:
        """Have the node leave where a signal ends its container; look in any case."""
        now_s = time.monotonic()
        seen = self._seen.get(event.id)
        if event.is_kill and seen:
            if event.signal not in (signal.SIGKILL, signal.SIGTERM, find_signal(seen.stop_signal)):
                return
            self._stopping[event.id] = seen.started, now_s + seen.stop_s + _AFTER_STOP_S
            self._crew.leave(event.id, "its container is being stopped")
        self._waiting_pause_s = _WAITING_S[0]
        self._look_s = min(self._look_s, max(now_s, self._last_look_s + _GAP_S))

    def _look(self, now_s: float) -> None:
        """Read all containers, and have the nodes come and go."""
        found = self._docker.list_running()
        self._seen = {seen.id: seen for seen in found}
        self._stopping = {
            number: (started, until_s)
            for number, (started, until_s) in self._stopping.items()
            if number in self._seen and self._seen[number].started == started and now_s < until_s
        }
        good = list(self._judge([seen for seen in found if seen.id not in self._stopping and is_ours(seen)]))
        announced = self._crew.list_announced()
        ready = self._keep_ready(good, announced, now_s)
        wanted, rest = choose(ready, announced, self._rules.most)
        more = f"{rest} containers more than --max {self._rules.most} have the label: they are not announced"
        self._say("most", more if rest else "")
        self._crew.want(wanted)
        self._notifier.tell_status(f"{len(wanted)} containers are announced")
        self._last_look_s = time.monotonic()
        pause_s = _RESYNC_S
        if self._waiting or self._stopping or self._fault_count:
            pause_s, self._waiting_pause_s = self._waiting_pause_s, min(_WAITING_S[1], self._waiting_pause_s * 1.5)
        self._look_s = self._last_look_s + pause_s
        for key in set(self._said) - set(self._seen) - {"engine", "most"}:
            del self._said[key]

    def _judge(self, found: list[Seen]) -> Iterator[tuple[Seen, Announcement]]:
        own = list_local_addresses()
        for seen in found:
            try:
                announcement = judge(seen, self._rules.prefix, own)
            except ValueError as fault:
                self._say(seen.id, f"{describe(seen)} is not announced: {fault}")
                continue
            yield seen, announcement

    def _keep_ready(
        self, good: list[tuple[Seen, Announcement]], announced: set[str], now_s: float
    ) -> list[tuple[Seen, Announcement]]:
        """Return the containers that are announced, and those that are healthy, or that have no check and answer."""
        asked = {
            seen.id: (said.address, said.port)
            for seen, said in good
            if seen.id not in announced and not seen.health and not seen.is_paused
        }
        answering = list_open(asked)
        ready, waiting = [], {}
        for seen, said in good:
            if seen.id in announced or seen.id in answering or (seen.health and not said.is_drained):
                ready.append((seen, said))
                self._say(seen.id, "")
                continue
            since_s = self._waiting.get(seen.id, now_s)
            if not seen.health:
                waiting[seen.id] = since_s
                why = f"nothing answers at {said.address}, port {said.port}"
            else:
                why = f"the engine calls it {'paused' if seen.is_paused else seen.health[:20]}"
            if seen.health != STARTING and now_s - since_s >= (_PATIENCE_S if not seen.health else 0.0):
                self._say(seen.id, f"{describe(seen)} is not announced yet: {why}")
        self._waiting = waiting
        return ready

    def _say(self, key: str, text: str) -> None:
        """Log a warning once, until it is another one; "" where nothing is wrong any more."""
        if text and self._said.get(key) != text:
            log.warning("%s", text)
        self._said[key] = text
