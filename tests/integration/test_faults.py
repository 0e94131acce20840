"""Faults at every step of a pass, with a real HAProxy under load: the next pass repairs them and no request is lost."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.faults import Bench, running_bench, running_passes
from integration.passes import START, Passes, Stopped
from integration.proxy import running_proxy
from integration.test_load import applications

AT_RUN_TIME = (START, "read", "rendered", "compared", "applied", "checked", "published", "recorded")
BY_RELOAD = (*AT_RUN_TIME[:-1], "reloaded", "confirmed", "recorded")
IN_FORCE = ("UNCHANGED ", "APPLIED ", "RELOADED ")
STOP_S = 0.1  # as long as a pass
DURING_S = 0.008  # after a step, so that the fault hits the middle of the next one


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Run three web applications for all tests of this module."""
    with applications(3) as running:
        yield running


@pytest.fixture
def passes() -> Iterator[Passes]:
    """Yield the process that forks passes."""
    with running_passes() as forking:
        yield forking


def kill_pass(_bench: Bench, cut: Stopped) -> None:
    cut.kill()


def stop_pass(_bench: Bench, cut: Stopped) -> None:
    time.sleep(STOP_S)
    assert cut.finish().startswith(IN_FORCE)


def stop_worker(bench: Bench, cut: Stopped) -> None:
    _stop_for_a_while(bench.worker_pid(), cut)


def stop_master(bench: Bench, cut: Stopped) -> None:
    assert bench.proxy.process
    _stop_for_a_while(bench.proxy.process.pid, cut)


def _stop_for_a_while(pid: int, cut: Stopped) -> None:
    os.kill(pid, signal.SIGSTOP)
    cut.send(signal.SIGCONT)
    time.sleep(STOP_S)
    os.kill(pid, signal.SIGCONT)
    assert cut.finish().startswith(IN_FORCE)


def kill_worker(bench: Bench, cut: Stopped) -> None:
    with bench.away():
        os.kill(bench.worker_pid(), signal.SIGKILL)
        cut.send(signal.SIGCONT)
        bench.restart()
    assert cut.finish().startswith((*IN_FORCE, "UNCONFIRMED "))


def kill_master(bench: Bench, cut: Stopped) -> None:
    with bench.away():
        bench.proxy.stop(signal.SIGKILL)
        cut.send(signal.SIGCONT)
        bench.restart()
    assert cut.finish().startswith((*IN_FORCE, "UNCONFIRMED "))


def hide_runtime_socket(bench: Bench, cut: Stopped) -> None:
    assert _finish_without(bench.proxy.settings.runtime_socket, cut).startswith(IN_FORCE)


def hide_master_socket(bench: Bench, cut: Stopped) -> None:
    said = _finish_without(bench.proxy.settings.master_socket, cut)
    # Only the master socket can reload this HAProxy. A pass that needs a reload says so and restores the file.
    assert said.startswith(IN_FORCE) or (said.startswith("UNCONFIRMED ") and "HAProxy does not run" in said)


def hide_haproxy_binary(bench: Bench, cut: Stopped) -> None:
    said = _finish_without(bench.proxy.settings.haproxy_bin, cut)
    assert said.startswith(IN_FORCE) or said.startswith("SystemFault cannot start ")


def _finish_without(path: str, cut: Stopped) -> str:
    os.rename(path, f"{path}.hidden")
    said = cut.finish()
    os.rename(f"{path}.hidden", path)
    return said


FAULTS: tuple[Callable[[Bench, Stopped], None], ...] = (
    kill_pass,
    stop_pass,
    stop_worker,
    stop_master,
    kill_worker,
    kill_master,
    hide_runtime_socket,
    hide_master_socket,
    hide_haproxy_binary,
)


@pytest.mark.parametrize("steps", [AT_RUN_TIME, BY_RELOAD], ids=["at run time", "by reload"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_at_any_step_of_a_pass_is_repaired(
    passes: Passes,
    short_dir: Path,
    ports: dict[str, int],
    fault: Callable[[Bench, Stopped], None],
    steps: tuple[str, ...],
) -> None:
    """A fault before, between or (in the pass itself) during the steps is repaired by the following passes."""
    binary = short_dir / "haproxy-of-this-test"
    binary.symlink_to("/usr/sbin/haproxy")
    by_reload = steps is BY_RELOAD
    name = f"{fault.__name__.replace('_', ' ')}, {'by reload' if by_reload else 'at run time'}"
    is_of_pass = fault in (kill_pass, stop_pass)
    moments = [(step, delay_s) for step in steps for delay_s in ((0.0, DURING_S) if is_of_pass else (0.0,))]
    environment = {"SERF_HAPROXY_HAPROXY_BIN": str(binary), "SERF_HAPROXY_DRAIN_TIMEOUT_S": "0"}
    with running_proxy(short_dir, **environment) as proxy, running_bench(proxy, ports, name) as bench:
        for step, delay_s in moments:
            bench.turn("web3", by_reload)
            cut = passes.begin(bench.environment(), step, delay_s)
            fault(bench, cut)
            bench.heal()
