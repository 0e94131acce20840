"""Hands: what the executors are told to do, in threads, so that no look waits for it. Failures are paced."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

from serf_haproxy.autoscale.executor import Executor
from serf_haproxy.autoscale.law import Verb
from serf_haproxy.errors import SystemFault

_MOST = 8  # tasks at the same time
_LIST_S = 3.0  # how often slots are listed while nothing happens
_PAUSE_S, _PAUSE_MAX_S = 1.0, 60.0
_STALE_S = 30.0  # an older list says nothing

_Result = TypeVar("_Result")


class Act(NamedTuple):
    """Something that was done.

    Attributes:
        verb: START or STOP.
        slot: The slot.
        took_s: How long it took.
        fault: Why it failed, "" where it did not.
    """

    verb: Verb
    slot: str
    took_s: float
    fault: str


class _Task(NamedTuple):
    verb: Verb
    since_s: float
    future: Future[None]


class _Failure(NamedTuple):
    verb: Verb
    row: int
    retry_s: float


class Hands:
    """What acts for one service. Its methods are called from one thread and never wait.

    Args:
        executor: What starts and stops servers.
        former: What acted for the service before, by other rules: what it has begun goes on here.
    """

    def __init__(self, executor: Executor, former: "Hands | None" = None) -> None:
        self._executor = executor
        self._tasks: dict[str, _Task] = {}
        self._settling: dict[str, tuple[Verb, float]] = {}  # done, and no list has shown it yet
        self._failures: dict[str, _Failure] = {}
        self._vain: list[Act] = []  # what was done, as the executor said, and no list shows
        self._listing: tuple[float, int, Future[Mapping[str, bool]]] | None = None
        self._list_at_s = 0.0
        self._listed_s = float("-inf")
        self._act_count = 0
        self.filled: Mapping[str, bool] = {}
        self.fault = "the executor has not been asked yet"
        if former is not None:
            self._tasks, self._settling = former._tasks, former._settling  # failures may be mended by other rules

    def is_known(self, now_s: float) -> bool:
        """Return whether the list of filled slots is recent."""
        return now_s - self._listed_s <= _STALE_S

    def find_busy(self) -> dict[str, tuple[Verb, float]]:
        """Return what is being done with slots, and since when; what is done counts until a list shows it."""
        return self._settling | {slot: (task.verb, task.since_s) for slot, task in self._tasks.items()}

    def tell(self, verb: Verb, slot: str, now_s: float) -> bool:
        """Have a slot started or stopped; return False where that is under way, or failed a moment ago."""
        failure = self._failures.get(slot)
        is_paused = failure is not None and failure.verb is verb and now_s < failure.retry_s
        if slot in self._tasks or slot in self._settling or is_paused or len(self._tasks) >= _MOST:
            return False
        work = self._executor.start if verb is Verb.START else self._executor.stop
        self._tasks[slot] = _Task(verb, now_s, _run(lambda: work(slot)))
        return True

    def collect(self, now_s: float) -> list[Act]:
        """Return what has been done since the last call, and have the slots listed where that is due."""
        acts: list[Act] = []
        for slot, task in list(self._tasks.items()):
            if task.future.done():
                del self._tasks[slot]
                acts.append(self._judge(slot, task, now_s))
        if acts:
            self._list_at_s, self._act_count = 0.0, self._act_count + len(acts)
        self._list(now_s)
        acts += self._vain
        self._vain = []
        return acts

    def _judge(self, slot: str, task: _Task, now_s: float) -> Act:
        try:
            task.future.result()
        except SystemFault as error:
            self._pause(task.verb, slot, now_s)
            return Act(task.verb, slot, now_s - task.since_s, str(error))
        self._settling[slot] = task.verb, task.since_s
        return Act(task.verb, slot, now_s - task.since_s, "")

    def _pause(self, verb: Verb, slot: str, now_s: float) -> None:
        before = self._failures.get(slot)
        count = before.row + 1 if before and before.verb is verb else 1
        pause_s = min(_PAUSE_MAX_S, _PAUSE_S * 2.0 ** min(count - 1, 10))
        self._failures[slot] = _Failure(verb, count, now_s + pause_s)

    def _settle(self, now_s: float) -> None:
        """Compare what was done with the list: what it does not show is a failure."""
        for slot, (verb, since_s) in self._settling.items():
            if (slot in self.filled) is (verb is Verb.START):
                self._failures.pop(slot, None)
                continue
            self._pause(verb, slot, now_s)
            fault = "it has ended well, and the list of slots does not show it"
            self._vain.append(Act(verb, slot, now_s - since_s, fault))
        self._settling.clear()

    def _list(self, now_s: float) -> None:
        if self._listing is not None and self._listing[2].done():
            started_s, act_count, future = self._listing
            self._listing = None
            try:
                filled = future.result()
            except SystemFault as error:
                self.fault = str(error)
            else:
                if act_count == self._act_count:  # else what was done meanwhile may not be in it
                    self.filled, self._listed_s, self.fault = filled, started_s, ""
                    self._settle(now_s)
        if self._listing is None and now_s >= self._list_at_s:
            self._list_at_s = now_s + _LIST_S
            self._listing = now_s, self._act_count, _run(self._executor.list_filled)


def _run(work: Callable[[], _Result]) -> Future[_Result]:
    """Run a function in a thread that does not outlive the process: what it does can be done again."""
    future: Future[_Result] = Future()

    def finish() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the future raises it where it is asked
            future.set_exception(error)

    threading.Thread(target=finish, daemon=True).start()
    return future
