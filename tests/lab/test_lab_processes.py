"""Processes, identified by id and start time."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from serf_haproxy.errors import SystemFault
from serf_haproxy.lab import processes
from serf_haproxy.lab.processes import Process

SLEEP = ["sleep", "1000"]


def start(directory: Path, *argv: str) -> Process:
    """Start a process in a directory."""
    return processes.start(argv, os.environ, str(directory), str(directory / "log"))


def living_in(directory: Path) -> set[int]:
    """Return the ids of the processes that work in a directory."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(directory):
                found.add(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_for_line(directory: Path, line: str) -> None:
    """Wait until a process has written a line to its log."""
    deadline = time.monotonic() + 15
    while line not in (directory / "log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_the_process_that_was_started_is_signalled(tmp_path: Path) -> None:
    """The same id with another start time is another process: it counts as gone and gets no signal."""
    ours = start(tmp_path, *SLEEP)
    other = ours._replace(started_s=ours.started_s - 5)
    assert (processes.is_alive(ours), processes.is_alive(other)) == (True, False)
    processes.send(other, signal.SIGKILL)
    processes.kill([other])
    processes.stop([other], 5)
    assert processes.is_alive(ours)
    processes.kill([ours])
    assert not processes.is_alive(ours)


def test_stop_kills_a_process_that_ignores_sigterm(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed after the time limit, with its children."""
    deaf = start(tmp_path, "sh", "-c", "trap '' TERM; sleep 1000 & echo deaf; wait")
    wait_for_line(tmp_path, "deaf")
    assert len(living_in(tmp_path)) == 2
    processes.stop([deaf], 0.2)
    assert living_in(tmp_path) == set()


def test_stop_finds_orphans_in_the_session(tmp_path: Path) -> None:
    """A grandchild whose parent ended before the processes were listed is stopped as well."""
    root = start(tmp_path, "sh", "-c", "(sleep 1000 &); echo started; exec sleep 1000")
    wait_for_line(tmp_path, "started")
    assert len(processes.list_tree(root)) == 1
    assert len(living_in(tmp_path)) == 2
    processes.stop([root], 5)
    assert living_in(tmp_path) == set()


def test_kill_takes_the_whole_tree(tmp_path: Path) -> None:
    """Parents are killed before they can start another child."""
    root = start(tmp_path, "sh", "-c", "while :; do sleep 1000; done & while :; do sleep 1000; done & echo on; wait")
    wait_for_line(tmp_path, "on")
    processes.kill([root])
    assert living_in(tmp_path) == set()


def test_signals_are_held_until_a_start_is_recorded() -> None:
    """A signal within the block is delivered at its end, once, to the former handler."""
    heard: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("handler"))
    try:
        with processes.hold_signals():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            heard.append("block")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["block", "handler"]


def test_children_do_not_inherit_ignored_signals(tmp_path: Path) -> None:
    """s6 stops Serf with SIGINT, which a shell sets to be ignored in background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with processes.hold_signals():
            child = start(tmp_path, sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT))")
        assert processes.wait_gone([child], 15) == set()
    finally:
        signal.signal(signal.SIGINT, before)
    assert "default_int_handler" in (tmp_path / "log").read_text()


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    """The error names the program that could not be started, and its working directory."""
    with pytest.raises(SystemFault, match=f"cannot start no-such-program in {tmp_path}: No such file"):
        start(tmp_path, "no-such-program")
