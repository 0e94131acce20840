"""Processes that outlive the command that starts them, identified by id and start time.

The kernel gives a process id to another process later: with the start time only processes of the lab are signalled.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import psutil

from serf_haproxy.errors import SystemFault

_POLL_S = 0.05
_KILL_S = 5.0  # SIGKILL takes time on a busy machine
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Children of this process: they have to be reaped, and a Popen that is deleted while its process runs gives a warning.
_children: dict[int, subprocess.Popen[bytes]] = {}


class Process(NamedTuple):
    """One process.

    Attributes:
        pid: The process id.
        started_s: When it started, in seconds after boot, so that setting the clock does not change it.
    """

    pid: int
    started_s: float


def start(argv: Sequence[str], environ: Mapping[str, str], work_dir: str, log_path: str) -> Process:
    """Start a process in a session of its own, with its output appended to a log; it outlives this command.

    Raises:
        SystemFault: The process cannot be started.
    """
    try:
        with open(log_path, "ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=work_dir,
                start_new_session=True,
            )
    except OSError as error:
        raise SystemFault(f"cannot start {argv[0]} in {work_dir}: {error.strerror}") from error
    _children[child.pid] = child
    return _identify(psutil.Process(child.pid))


def is_alive(process: Process | None) -> bool:
    """Return whether a process still runs; a zombie does not."""
    return process is not None and _find(process) is not None


def list_tree(process: Process) -> set[Process]:
    """Return a process and all its descendants; an empty set when it is gone."""
    found = _find(process)
    if found is None:
        return set()
    tree = {process}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in found.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                tree.add(_identify(child))
    return tree


def find_marked(name: str, value: str) -> set[Process]:
    """Return the processes that were started with this variable in their environment."""
    marked = set()
    for found in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if found.environ().get(name) == value:
                marked.add(_identify(found))
    return marked


def send(process: Process | None, number: signal.Signals) -> None:
    """Send a signal, if the process still runs."""
    found = _find(process) if process else None
    if found is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.send_signal(number)


def wait_gone(processes: Iterable[Process], timeout_s: float) -> set[Process]:
    """Wait until processes are gone; return those that still run after the time limit."""
    deadline = time.monotonic() + timeout_s
    left = set(processes)
    while left := {process for process in left if is_alive(process)}:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    return left


def stop(roots: Collection[Process], timeout_s: float) -> None:
    """Stop processes with SIGTERM, then kill what is left of them, their descendants and the sessions of all these.

    Descendants are collected while this waits, because an orphan can no longer be found by its ancestors.

    Raises:
        SystemFault: A process survives SIGKILL.
    """
    family = set(roots).union(*map(list_tree, roots))
    for process in roots:
        send(process, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while any(is_alive(process) for process in roots) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        family.update(*map(list_tree, roots))
    kill(family | _list_sessions(family))


def kill(processes: Collection[Process]) -> None:
    """Kill processes with all their descendants and wait until they are gone.

    Each is stopped with SIGSTOP before its children are listed, so that it cannot start another one in between.

    Raises:
        SystemFault: A process survives SIGKILL.
    """
    pending = list(processes)
    killed = set()
    while pending:
        process = pending.pop()
        found = _find(process)
        if found is None:
            continue
        killed.add(process)
        with contextlib.suppress(psutil.NoSuchProcess):
            found.suspend()
            children = found.children()
            found.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    pending.append(_identify(child))
    left = wait_gone(killed, _KILL_S)
    if left:
        pids = ", ".join(str(process.pid) for process in sorted(left))
        raise SystemFault(f"processes {pids} survive SIGKILL; look at their state in ps")


@contextlib.contextmanager
def hold_signals() -> Iterator[None]:
    """Delay SIGINT, SIGTERM and SIGHUP to the end of the block, so that no process is started and not recorded.

    The handlers also keep children from inheriting an ignored SIGINT, which a shell sets for background jobs: s6
    stops Serf with that signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    held: list[int] = []
    before = {}
    try:
        for number in _SIGNALS:
            before[number] = signal.signal(number, lambda number, _: held.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in dict.fromkeys(held):
            signal.raise_signal(late)


def _list_sessions(leaders: Collection[Process]) -> set[Process]:
    """Return the processes in the sessions of the given leaders.

    The kernel does not reuse the id of a leader as long as its session has a process.
    """
    known = {process.pid: process for process in leaders}
    members = set()
    for found in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            leader = known.get(os.getsid(found.pid))
            process = _identify(found)
            if leader and (process.pid != leader.pid or process == leader):
                members.add(process)
    return members


def _identify(found: psutil.Process) -> Process:
    boot_s = psutil.boot_time()
    return Process(found.pid, round(found.create_time() - boot_s, 2))


def _find(process: Process) -> psutil.Process | None:
    """Return a running process with this id and start time; None when there is none."""
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        del _children[process.pid]
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        found = psutil.Process(process.pid)
        # A child that is a zombie and cannot be reaped yet still has threads that end.
        is_dead = child is None and found.status() == psutil.STATUS_ZOMBIE
        if not is_dead and _identify(found) == process:
            return found
    return None
