"""The daemon: waits for wakes, signals, the clock and Serf, and makes one pass at a time."""

import gc
import logging
import os
import select
import selectors
import signal
import stat
import time
from collections.abc import Callable, Collection

from serf_haproxy.balance.loop import make_balance
from serf_haproxy.control.directories import prepare_directories
from serf_haproxy.control.edges import find_serf
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.control.state import State
from serf_haproxy.daemon.bulletin import Bulletin
from serf_haproxy.daemon.courier import Courier
from serf_haproxy.daemon.leaves import Leaves
from serf_haproxy.daemon.schedule import make_schedule
from serf_haproxy.daemon.telling import Teller
from serf_haproxy.daemon.watch import make_watch
from serf_haproxy.daemon.watchdog import Watchdog
from serf_haproxy.daemon.web_process import WebProcess
from serf_haproxy.errors import SerfHaproxyError, SettingsError, SystemFault
from serf_haproxy.serf.client import Client
from serf_haproxy.serf.wake import MEMBER_WORD, drain, is_open_at, open_fifo
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import set_aside
from serf_haproxy.system.locks import locked
from serf_haproxy.system.signals import collecting

log = logging.getLogger("serf-haproxy")

_PAUSE_S = 2.0  # the longest pause after an error of our own, in which no wake is heard
_WATCH_S = 1.0  # how often the operator's files are looked at
_GC_THRESHOLDS = 100_000, 50, 100  # a pass over ten thousand members makes a million objects, and hardly a cycle
_START_S = 0.5  # `status` takes the lock for a moment to see whether the daemon holds it


class Daemon:
    """The resident process of `serf-haproxy run`.

    Args:
        load_settings: Reads the settings, at the start and on SIGHUP.
        bulletin: Tells the supervisor how the daemon is.
    """

    def __init__(self, load_settings: Callable[[], Settings], bulletin: Bulletin) -> None:
        self._load_settings = load_settings
        self._bulletin = bulletin
        self._settings = load_settings()
        self._schedule = make_schedule(self._settings)
        self._client = _make_client(self._settings)
        self._reconciler = Reconciler(self._settings)
        self._courier = Courier(self._settings)
        self._leaves = Leaves()
        self._watch = make_watch(self._settings)
        self._balance = make_balance(self._settings)
        self._wake_fd = -1
        self._signals: set[int] = set()
        self._teller = Teller()
        self._watchdog = Watchdog()
        self._web = WebProcess(self._settings)

    def run(self, greet: Callable[[], None] = lambda: None) -> None:
        """Make passes until SIGTERM or SIGINT; a pass that runs is finished first.

        Args:
            greet: Called once, before the first pass.

        Raises:
            SystemFault: The directories or the FIFO cannot be made, or another daemon runs.
        """
        gc.set_threshold(*_GC_THRESHOLDS)
        prepare_directories(self._settings)
        state = State(self._settings.state_dir)
        with (
            locked(state.daemon_lock_path, _START_S, "another daemon", is_named=True),
            locked(state.former_lock_path, _START_S, "another daemon"),
            collecting(self._signals) as signal_fd,
        ):
            self._wake_fd = open_fifo(self._settings.wake_fifo)
            self._survive(greet, signal_fd)
            self._survive(lambda: self._work(is_first=True), signal_fd)
            self._bulletin.tell_first_pass()
            while not self._signals & {signal.SIGTERM, signal.SIGINT}:
                self._survive(lambda: self._wait(signal_fd), signal_fd)
                self._survive(self._obey, signal_fd)
                self._survive(self._balance.look, signal_fd)
            self._bulletin.stop()
            self._client.close()
            self._web.stop()
            self._courier.close()
        log.info("stopped by a signal")

    def _obey(self) -> None:
        """Do what is due."""
        if signal.SIGHUP in self._signals:
            self._signals.discard(signal.SIGHUP)
            self._reload_settings()
        self._work()

    def _survive(self, work: Callable[[], None], signal_fd: int) -> None:
        """Work; after any error log it and begin anew, with pauses that grow, so that nothing ends the daemon."""
        try:
            work()
        except SerfHaproxyError as error:
            self._teller.tell({str(error): logging.ERROR})
            self._reconciler.memory.tell_failure(self._settings, str(error))
            self._web.tell_error()
            self._bulletin.fail(str(error))
            self._schedule.fail(time.monotonic())
        except Exception:
            log.exception("an internal error; the pass is repeated")
            self._web.tell_error()
            self._bulletin.fail("an internal error; the pass is repeated")
            self._client, self._reconciler = _make_client(self._settings), Reconciler(self._settings)
            self._schedule.fail(time.monotonic())
            pause_s = self._schedule.failure_pause_s()
            # The next pass comes first: if asking is what fails, events are handled all the same.
            self._schedule.ask_at(time.monotonic() + 2 * pause_s)
            # If waiting is what fails, it fails again at once. A signal ends this pause.
            poll = select.poll()
            poll.register(signal_fd, select.POLLIN)
            poll.poll(1000 * min(pause_s, _PAUSE_S))
            drain(signal_fd)

    def _wait(self, signal_fd: int) -> None:
        """Sleep until something is due or arrives."""
        self._web.look(is_serf_up=self._client.is_up())
        self._bulletin.look(is_serf_up=self._client.is_up(), is_web_missing=self._web.is_missing)
        with selectors.PollSelector() as selector:  # it needs no descriptor, of which there may be none left
            selector.register(signal_fd, selectors.EVENT_READ)
            selector.register(self._wake_fd, selectors.EVENT_READ)
            for connection in (*self._client.watched(), *self._courier.watched()):
                selector.register(connection, selectors.EVENT_READ, connection)
            due_s = min(self._schedule.due_s(), self._balance.due_s(), self._leaves.due_s())
            timeout_s = max(0.0, due_s - time.monotonic())
            ready = [key for key, _ in selector.select(min(timeout_s, _WATCH_S))]
        for key in ready:
            if key.fileobj == signal_fd:
                drain(signal_fd)
            elif key.fileobj == self._wake_fd:
                self._hear_wakes()
            elif key.data in self._courier.watched():
                self._hasten(self._courier.look())
            elif names := self._client.look(key.data):
                self._hear_hint(names)
            elif not self._client.is_up():
                self._schedule.ask_at(self._client.next_try_s())
        if self._watch.has_changed():
            self._schedule.wake(time.monotonic())

    def _hear_hint(self, names: Collection[str]) -> None:
        """Bring HAProxy to what the members of a hint say; the pass follows, at once where that was not possible."""
        limit_s = self._settings.check_timeout_s
        with self._watchdog.watching(limit_s):
            is_done = self._reconciler.hasten(names, self._client.ask_some)
        if is_done:
            self._schedule.wake(time.monotonic())
        else:
            self._schedule.ask_at(0.0)

    def _hear_wakes(self) -> None:
        """Read the wakes: one for an order is no reason for a pass, since any member of the gossip can send orders."""
        if MEMBER_WORD in drain(self._wake_fd):
            self._schedule.wake(time.monotonic())
        self._courier.note_mail()

    def _hasten(self, is_news: bool) -> None:
        """Make a pass at once where there are new orders."""
        if is_news:
            self._schedule.wake(time.monotonic() - self._settings.max_wait_s)

    def _work(self, is_first: bool = False) -> None:
        """Make a pass if one is due; a pass that is only due to ask Serf waits until there is a connection to Serf."""
        self._reconciler.memory.replies.renew(self._settings)
        self._hasten(self._courier.work(self._client, *self._reconciler.list_balancers()))
        now_s = time.monotonic()
        if now_s >= self._leaves.due_s() and (look_at_s := self._leaves.ask(self._client, now_s)):
            self._schedule.ask_at(look_at_s)
        is_resync = self._schedule.is_resync_due(now_s, self._client.is_up())
        if is_resync and not self._client.connect():
            self._schedule.ask_at(self._client.next_try_s())
            is_resync = False
        if is_first or is_resync or self._schedule.is_pass_due(now_s):
            self._pass(is_resync)

    def _pass(self, is_resync: bool) -> None:
        pause = self._schedule.begin(time.monotonic())
        # Later wakes ask for another pass; this one answers all earlier ones.
        drain(self._wake_fd)
        self._courier.note_mail()
        self._restore_paths()
        limit_s = self._settings.check_timeout_s + self._settings.reload_timeout_s
        began_s = time.time()
        with self._watchdog.watching(limit_s, self._bulletin.beat) as on_step:
            outcome = self._reconciler.reconcile(self._client.ask, is_resync, on_step, pause)
        self._bulletin.follow(outcome)
        self._web.tell(outcome, began_s, self._reconciler.command_count, is_serf_up=self._client.is_up())
        self._watch.follow(self._reconciler.list_service_files())
        memory = self._reconciler.memory
        self._leaves.follow(memory.files, time.monotonic())
        measured = {} if outcome.verdict is Verdict.PAUSED else memory.measured
        self._balance.follow(measured, memory.renderer.parser, outcome.has_reloaded)
        self._teller.log(outcome)
        self._schedule.end(time.monotonic(), outcome)
        if is_resync and not outcome.has_roster:
            self._schedule.ask_at(self._client.next_try_s())

    def _restore_paths(self) -> None:
        """Make directories and FIFO again where they were removed, so that handlers can write and wake."""
        prepare_directories(self._settings)
        if not is_open_at(self._wake_fd, self._settings.wake_fifo):
            set_aside(self._settings.wake_fifo, is_right=stat.S_ISFIFO)  # the FIFO was there, so the path is right
            wake_fd = open_fifo(self._settings.wake_fifo)
            os.close(self._wake_fd)
            self._wake_fd = wake_fd

    def _reload_settings(self) -> None:
        """Read the settings again and make a pass; invalid settings are logged and ignored."""
        try:
            settings = self._load_settings()
            prepare_directories(settings)
            wake_fd = open_fifo(settings.wake_fifo)
        except (SettingsError, SystemFault) as error:
            log.error("%s", f"the settings stay as they were: {error}")
            self._web.follow(None)
            return
        os.close(self._wake_fd)
        self._wake_fd = wake_fd
        self._client.close()
        self._courier.close()
        self._settings, self._client, self._courier = settings, _make_client(settings), Courier(settings)
        self._web.follow(settings)
        self._reconciler = Reconciler(settings, self._reconciler.memory)
        self._schedule, self._watch = make_schedule(settings), make_watch(settings)
        self._balance = make_balance(settings, self._balance)
        self._schedule.wake(time.monotonic() - settings.max_wait_s)
        log.info("settings, services file and template were read again")


def _make_client(settings: Settings) -> Client:
    return Client(find_serf(settings), settings.hints)
