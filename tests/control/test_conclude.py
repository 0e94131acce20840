"""When a balancer counts as alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serf_haproxy.control.conclude import is_alone
from serf_haproxy.control.outcome import ALONE, HELD
from serf_haproxy.control.record import Record
from serf_haproxy.control.state import State
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import NodeFile

WAS_ALONE = Record(conditions=[[ALONE, "as before"]])
DAMAGED = Record(conditions=[None, 7, [], "alone", {"alone": 1}])


@pytest.mark.parametrize(
    ("others", "before", "expected"),
    [
        ({}, Record(), False),
        ({"web1": "alive"}, Record(), False),
        ({"web1": "left"}, Record(), False),
        ({"web1": "failed"}, Record(), True),
        ({"web1": "failed", "web2": "left"}, Record(), True),
        ({"web1": "failed", "web2": "alive"}, WAS_ALONE, False),
        ({}, WAS_ALONE, True),
        ({"web1": "left"}, WAS_ALONE, True),
        ({"web1": "alive"}, WAS_ALONE, False),
        ({}, DAMAGED, False),
    ],
)
def test_a_balancer_is_alone_when_no_other_is_left_that_did_not_leave(
    others: dict[str, str], before: Record, expected: bool
) -> None:
    """It is alone from when the last other member failed or vanished until another one is alive."""
    files = {name: NodeFile(status, Member(name, "10.0.0.1", "web", ()), 1) for name, status in others.items()}
    files["lb1"] = NodeFile("alive", Member("lb1", "10.0.0.9", "balancer", ()), 1)
    assert is_alone(files, "lb1", before) is expected
    assert not is_alone(files, "", before)  # Serf was never reached


@pytest.mark.parametrize(("name", "code"), [(ALONE, 111), (HELD, 0)])
def test_ready_cluster_fails_while_the_balancer_is_alone(tmp_path: Path, name: str, code: int) -> None:
    """`serf-haproxy ready cluster` ends with 111 when the last pass found the balancer alone."""
    State(str(tmp_path)).write_record(Record(conditions=[[name, "a reason"]]))
    argv = [sys.executable, "-m", "serf_haproxy", "ready", "cluster"]
    environ = os.environ | {"SERF_HAPROXY_STATE_DIR": str(tmp_path)}
    assert subprocess.run(argv, env=environ, capture_output=True, check=False).returncode == code
