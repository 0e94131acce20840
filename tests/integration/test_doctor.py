"""`doctor` looks at all that a balancer needs, with one remedy a line; and no command ends with a traceback."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from integration.balancer import Balancer
from integration.test_status import COMMAND, run
from serf_haproxy.serf.wake import open_fifo

GOOD, BAD = "\u221a ", "\u00d7 "

pytestmark = pytest.mark.usefixtures("time_limit")


def test_a_whole_balancer_has_nothing_wrong(balancer: Balancer) -> None:
    """Every line has a check mark, and the exit code is 0."""
    fd = open_fifo(balancer.settings.wake_fifo)
    try:
        shown = run(balancer, "doctor")
    finally:
        os.close(fd)
    assert shown.returncode == 0, shown.stdout
    lines = shown.stdout.splitlines()
    assert all(line.startswith(GOOD) for line in lines), shown.stdout
    for word in (
        "settings are valid",
        "can be written",
        "HAProxy version 2",
        "Serf answers",
        "answers",
        "the daemon runs",
    ):
        assert any(word in line for line in lines), word


def test_each_fault_has_a_remedy(balancer: Balancer) -> None:
    """Each line with a cross names a thing and, after a colon, what to do; the exit code is 1."""
    os.kill(balancer.serf, signal.SIGKILL)
    balancer.stop(signal.SIGKILL)
    Path(balancer.settings.wake_fifo).unlink(missing_ok=True)
    balancer.environment["SERF_HAPROXY_BALENCE"] = "first"
    balancer.environment["SERF_HAPROXY_HAPROXY_BIN"] = "false"
    shown = run(balancer, "doctor")
    assert shown.returncode == 1
    crosses = [line for line in shown.stdout.splitlines() if line.startswith(BAD)]
    for pattern in (
        "did you mean SERF_HAPROXY_BALANCE.*: remove or correct",
        "is not the FIFO.*: start the daemon",
        "false: .*: change SERF_HAPROXY_HAPROXY_BIN",
        "Serf's RPC at .*: start it",
        "no HAProxy listens on .*: start it",
    ):
        assert any(re.search(pattern, line) for line in crosses), (pattern, shown.stdout)
    assert all(": " in line for line in crosses)


def test_wrong_settings_are_all_told(balancer: Balancer) -> None:
    """Wrong settings end the examination, each with a line."""
    balancer.environment |= {"SERF_HAPROXY_BALANCE": "x", "SERF_HAPROXY_QUIET_S": "x"}
    shown = run(balancer, "doctor")
    assert (shown.returncode, shown.stdout.count(f"{BAD}setting SERF_HAPROXY_")) == (1, 2)


@pytest.mark.parametrize("words", [["status", "-o", "json"], ["doctor"], ["settings"], ["explain", "web1"], ["render"]])
def test_a_reader_that_goes_away_is_no_error(balancer: Balancer, words: list[str]) -> None:
    """When the output is a pipe that closes, a command ends without a word."""
    readable, writable = os.pipe()
    os.close(readable)
    environ = os.environ | balancer.environment
    try:
        argv = [*COMMAND, *words]
        shown = subprocess.run(argv, env=environ, stdout=writable, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writable)
    assert shown.stderr == ""
