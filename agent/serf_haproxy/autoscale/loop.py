"""The autoscaler: the loop of `serf-haproxy autoscale`. It looks, and acts where this balancer is the one to decide."""

import contextlib
import logging
import math
import os
import select
import signal
import time
from collections.abc import Sequence

from serf_haproxy.autoscale.council import Council
from serf_haproxy.autoscale.fleet import Fleet
from serf_haproxy.autoscale.gauge import Gauge
from serf_haproxy.autoscale.meter import Meter
from serf_haproxy.autoscale.notes import write_notes
from serf_haproxy.autoscale.orders import AUTHOR, Orders, Standing
from serf_haproxy.autoscale.pilot import Event, View
from serf_haproxy.autoscale.wire import Load
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.history import SCALE, Happening
from serf_haproxy.control.outcome import HELD
from serf_haproxy.control.record import Record
from serf_haproxy.control.scaled import locate_notes, read_notes
from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.answers import STALE_S
from serf_haproxy.serf.printing import printable
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import find_stamp
from serf_haproxy.system.locks import locked
from serf_haproxy.system.notify import Notifier
from serf_haproxy.system.signals import collecting

log = logging.getLogger("serf-haproxy")

_STATUS = "status"  # the answer that the daemon renews while it runs
_LOOK_S = 0.25
_IDLE_S = 3.0  # while no service scales
_NOTE_S = 1.0
_COST = 20.0  # a pause lasts at least so many times as long as a look takes of a processor
_START_S = 2.0
_PAUSE_MAX_S = 30.0
_STEADY_S = 10.0  # so long all looks are good before a fault is taken to be over
_WATCH_S = 6.0  # longer than it takes to hear the other balancers


class Autoscaler:
    """The resident process of `serf-haproxy autoscale`.

    Args:
        settings: The settings.
        notifier: Tells systemd how it is.
        is_dry: Whether it only looks and decides.
    """

    def __init__(self, settings: Settings, notifier: Notifier, *, is_dry: bool = False) -> None:
        self._settings, self._notifier = settings, notifier
        self._is_dry = is_dry
        self._edges = make_edges(settings)
        self._orders = Orders(settings)
        self._council = Council(settings)
        self._notes_path = locate_notes(settings.state_dir)
        self.fleet = Fleet(settings, self._edges.state, self._orders, read_notes(self._notes_path))
        self._meter = Meter(settings.runtime_socket)
        self._noted_s = 0.0
        self._said = ""
        self._signals: set[int] = set()
        self.is_first = False
        self._record: tuple[tuple[int, ...] | None, Record] = (None, Record())
        self._fault_count = 0
        self._good_s = math.inf  # since when all looks were good

    def run(self) -> None:
        """Scale until SIGTERM or SIGINT.

        Raises:
            SystemFault: Another autoscaler runs.
        """
        lock_path = os.path.join(self._settings.state_dir, "autoscale.lock")
        while not os.path.isdir(self._settings.state_dir) and not self._is_over():
            self._wait(-1, _IDLE_S)  # the daemon makes it
        with collecting(self._signals) as signal_fd, locked(lock_path, _START_S, "another autoscaler"):
            while not self._is_over():
                began_s = time.thread_time()
                pause_s = self._survive()
                cost_s = _COST * (time.thread_time() - began_s)
                self._wait(signal_fd, max(pause_s, cost_s))
            self._notifier.tell_stopping()
            self._council.close()
        log.info("stopped by a signal")

    def watch(self) -> bool:
        """Look for some seconds; return whether this balancer decides.

        Raises:
            SystemFault: HAProxy, the node files or the orders cannot be read.
        """
        until_s = time.monotonic() + _WATCH_S
        while time.monotonic() < until_s:
            pause_s = self.look(time.monotonic())
            if not self.fleet.pilots:
                break
            self._wait(-1, pause_s)
        self._council.close()
        return self.is_first

    def _is_over(self) -> bool:
        return bool(self._signals & {signal.SIGTERM, signal.SIGINT})

    def _survive(self) -> float:
        """Look and act; return how long to wait for the next time.

        A fault is logged once, and its pauses grow, also where each second look is good.
        """
        now_s = time.monotonic()
        try:
            pause_s = self.look(now_s)
        except SystemFault as error:
            self._fault_count, self._good_s = self._fault_count + 1, math.inf
            self._notifier.tell_status(printable(f"nothing is started or stopped: {error}"))
            if self._said != str(error):
                self._said = str(error)
                log.warning("%s", f"nothing is started or stopped: {error}")
            return min(_PAUSE_MAX_S, _LOOK_S * 2.0 ** min(self._fault_count, 10))
        self._good_s = min(self._good_s, now_s)
        if self._fault_count and now_s - self._good_s >= _STEADY_S:
            log.info("%s", "scaling goes on")
            self._fault_count, self._said = 0, ""
        return pause_s

    def _wait(self, signal_fd: int, pause_s: float) -> None:
        """Wait, and read what other balancers answer meanwhile."""
        self._notifier.beat()
        until_s = time.monotonic() + pause_s
        while (left_s := until_s - time.monotonic()) > 0 and not self._is_over():
            watched = self._council.watched()
            fds = [*(query.fileno() for query in watched), *([signal_fd] if signal_fd >= 0 else [])]
            ready, _, _ = select.select(fds, [], [], left_s)
            if watched and fds[0] in ready:
                self._council.look(time.monotonic())
            if signal_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(signal_fd, 64)

    def look(self, now_s: float) -> float:
        """Look at all services, and act where this balancer is to; return the pause until the next look, seconds.

        Raises:
            SystemFault: HAProxy, the node files or the orders cannot be read.
        """
        record = self._read_record()
        for event in self.fleet.follow(now_s):
            log.info("%s", event)
        pilots, standing = self.fleet.pilots, self._orders.read()
        if not pilots and not standing.ours:
            self._notifier.tell_status("no service scales")
            return _IDLE_S
        self._council.find_others(record.self_name, now_s)
        has_waits = any(not pilot.rules.min for pilot in pilots.values())
        gauges = self._meter.read(pilots, now_s, has_waits=has_waits)
        if record.self_name and pilots and not self._is_dry:
            self._council.publish(record.self_name, self._sum_up(gauges, standing))
        self._council.ask(record.self_name, now_s)
        is_first = self.is_first = self._council.is_first(record.self_name, now_s)
        blind = self._find_blindness(standing, now_s, is_held=record.has_condition(HELD))
        events: list[tuple[str, Event]] = []
        for name, pilot in pilots.items():
            missing = f"HAProxy has no service {name} yet" if name not in gauges else ""
            view = View(
                now_s,
                time.time(),
                gauges.get(name, Gauge(0, {})),
                self._council.find_loads(name, now_s),
                standing,
                blind or missing,
            )
            if not is_first:
                pilot.forget()
            events += [(name, event) for event in pilot.look(view)]
            if is_first and not self._is_dry and not missing:
                events += [(name, event) for event in pilot.act(view)]
        if is_first and not self._is_dry:
            self.fleet.release(standing)
        self._tell(events, record.self_name)
        self._note(now_s, record.self_name, is_first=is_first, blind=blind)
        return _LOOK_S

    def _read_record(self) -> Record:
        """Return the record of the last pass, read again only where it has changed."""
        stamp = find_stamp(self._edges.state.record_path)
        if stamp is None or stamp != self._record[0]:
            self._record = stamp, self._edges.state.read_record()
        return self._record[1]

    def _sum_up(self, gauges: dict[str, Gauge], standing: Standing) -> dict[str, Load]:
        loads = {}
        for name, gauge in gauges.items():
            ours = [slot for slot in standing.ours if self.fleet.pilots[name].has(slot)]
            closed = {slot: gauge.servers.get(slot) for slot in ours}
            drained = {
                slot: row.in_flight if row else 0 for slot, row in closed.items() if row is None or not row.is_open
            }
            loads[name] = Load(self._meter.find_peak(name), drained, gauge.work_s)
        return loads

    def _find_blindness(self, standing: Standing, now_s: float, *, is_held: bool) -> str:
        """Return why the demand is not known whole, or why no server may be stopped; "" where nothing is wrong."""
        if standing.is_paused:
            return "an order pauses the balancer"
        if is_held:
            return "many servers were lost at once, and are held"
        if missing := self._council.list_missing(now_s):
            return f"balancer {missing[0]} does not say its load"
        try:
            age_s = time.time() - os.stat(os.path.join(self._settings.answers_dir, _STATUS)).st_mtime
        except OSError:
            return "the daemon has reported nothing yet"
        return f"the daemon has reported nothing for {age_s:.0f} s" if age_s > STALE_S else ""

    def _tell(self, events: Sequence[tuple[str, Event]], self_name: str) -> None:
        """Log what happened, and add it to the history."""
        for name, event in events:
            log.info("%s", f"service {name}: {event.what} {event.slot}: {event.why}")
            counts = self.fleet.pilots[name].counts
            counts[event.what] = counts.get(event.what, 0) + 1
        at_s = time.time()
        self._edges.history.add(
            Happening(at_s, self_name, SCALE, name, event.slot, event.what, event.why, AUTHOR) for name, event in events
        )

    def _note(self, now_s: float, self_name: str, *, is_first: bool, blind: str) -> None:
        if self._is_dry or not self.fleet.pilots or now_s < self._noted_s + _NOTE_S:
            return
        self._noted_s = now_s
        earlier = min((name for name in self._council.others if name < self_name), default="")
        why = blind if is_first else f"{earlier} decides" if earlier else "the name of this balancer is not known yet"
        self._notifier.tell_status(printable(why) or "this balancer decides")
        write_notes(self._notes_path, self.fleet.pilots, time.time(), is_deciding=is_first, why=why)
