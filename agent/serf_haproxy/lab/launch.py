"""Starting parts of a lab, waiting until they are served, and undoing it when they are not."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator

from serf_haproxy.errors import SystemFault
from serf_haproxy.lab import backend as web
from serf_haproxy.lab import balancer as tree
from serf_haproxy.lab import plan, processes, records, watch
from serf_haproxy.lab.records import LEFT, Backend, Balancer, Record

_APPS_S = 35.0  # an application gives the requests in flight 30 s
_AGENTS_S = 0.5
_JOIN_S = 1.0


def start(
    record: Record,
    balancers: Collection[Balancer],
    backends: Collection[Backend],
    wait_s: float,
    is_return: bool = False,
) -> None:
    """Start balancers and backends and wait until everything that concerns them is served.

    Args:
        record: The lab; they are in it.
        balancers: New ones.
        backends: New ones.
        wait_s: How long to wait for being served, 0 for not at all.
        is_return: The cluster may still know these backends at another address. Then their agents end by
            themselves until it has given up the former ones, so they are started again.

    Raises:
        SystemFault: Something does not come up, or is not served in time.
    """
    deadline = time.monotonic() + wait_s
    for backend in backends:
        web.start_app(record, backend)
    for balancer in balancers:
        tree.start(record, balancer)
    for backend in backends:
        web.wait_app(record, backend)
        web.start_serf(record, backend)
    for backend in backends:
        web.wait_serf(record, backend)
    if wait_s:
        watch.wait_ready(record, balancers, wait_s)
        _wait(record, balancers, backends, max(1.0, deadline - time.monotonic()), is_return)


@contextlib.contextmanager
def undoing(undo: Callable[[BaseException], None]) -> Iterator[None]:
    """Undo, undisturbed by further signals, when the block fails or is interrupted."""
    try:
        yield
    except BaseException as error:
        with processes.hold_signals():
            undo(error)
        raise


def stop_all(record: Record) -> None:
    """Stop everything: balancers first, so that they neither miss a backend nor work on its departure.

    The agents of the backends have nobody left to say goodbye to, which takes them 3 s: they get a moment.
    """
    tree.stop(record, record.balancers.values())
    backends = record.backends.values()
    for backend in backends:
        processes.send(backend.serf, signal.SIGTERM)
    processes.stop([backend.app for backend in backends if backend.app], _APPS_S)
    processes.stop([backend.serf for backend in backends if backend.serf], _AGENTS_S)
    for backend in backends:
        backend.serf = backend.app = None
        backend.state = LEFT
    record.is_up = False  # only now: until here another `down` must find what is left
    record.save()


def clear(record: Record) -> None:
    """Remove all files of a lab."""
    for name in (*record.balancers, "backends"):
        shutil.rmtree(os.path.join(record.lab_dir, name), ignore_errors=True)
    records.forget(record.lab_dir)


def remove(record: Record) -> None:
    """Remove all files of a lab, and its directory unless somebody else's file is in it."""
    clear(record)
    with contextlib.suppress(OSError):
        os.rmdir(record.lab_dir)


def enter(record: Record, backend: Backend, former: Backend | None, wait_s: float) -> None:
    """Start a backend that is new, or returns in the place of its former self; undo it when that fails."""

    def undo(_: BaseException) -> None:
        web.crash(record, [backend])
        if former:
            record.backends[former.name] = former
        else:
            del record.backends[backend.name]
        record.save()

    plan.check_ports(record, [], [backend])
    record.backends[backend.name] = backend
    with undoing(undo):
        start(record, [], [backend], wait_s, is_return=former is not None)


def abandon(record: Record, error: BaseException) -> None:
    """Stop all that an `up` has started; its logs stay when it failed, nothing when it was interrupted."""
    stop_all(record)
    if not isinstance(error, Exception):
        remove(record)


def _wait(
    record: Record, balancers: Collection[Balancer], backends: Collection[Backend], timeout_s: float, is_return: bool
) -> None:
    pairs = [
        (balancer, backend)
        for balancer in record.running_balancers()
        for backend in record.alive_backends()
        if (balancer in balancers and not web.find_fault(record, backend)) or backend in backends
    ]
    tend = _Tending(record, backends, is_return).tend
    if pairs:
        watch.wait_served(record, pairs, timeout_s, tend)
    else:
        watch.wait_known(record, backends, timeout_s, tend)


class _Tending:
    """Looks after new backends while somebody waits for them."""

    def __init__(self, record: Record, backends: Collection[Backend], is_return: bool) -> None:
        self.record = record
        self.backends = backends
        self.is_return = is_return
        self._join_at_s = 0.0

    def tend(self) -> None:
        """Raise SystemFault for a process that has ended, except where that is part of a return.

        An agent whose name the cluster still knows at another address ends after some 3 s, as long as the former
        one counts as alive. Then its introduction is refused without a word for 30 s (memberlist keeps the dead
        that long) and is tried by itself only now and then; asking for it saves up to 10 s.
        """
        for backend in self.backends:
            fault = web.find_fault(self.record, backend)
            if fault and not (self.is_return and processes.is_alive(backend.app)):
                raise SystemFault(fault)
            if fault:
                web.start_serf(self.record, backend)
                web.wait_serf(self.record, backend)
            elif self.is_return and time.monotonic() > self._join_at_s:
                web.join(self.record, backend)
                self._join_at_s = time.monotonic() + _JOIN_S
