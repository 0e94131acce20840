"""The five tasks of the lab about load balancing: each runs, and finds what is true."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workers
from integration.proxy import wait_for
from integration.test_lab import running_in
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.tasks import do_task

COUNT = 20  # requests of a user where the command makes 1,000


@pytest.fixture
def lab(short_dir: Path) -> Iterator[Lab]:
    """Yield the place for a lab; whatever is left of one is taken down."""
    place = Lab(short_dir / "lab", next(workers.lab_bases()))
    yield place
    place.down()


def do(lab: Lab, number: int, count: int = COUNT) -> dict[str, list[dict[str, Any]]]:
    """Do a task; return its tables. The lab is gone afterwards."""
    tables = do_task(lab, number, is_quiet=True, visit_count=count).tables
    assert not Path(lab.lab_dir).exists()
    return tables


def test_without_a_cookie_each_request_meets_the_other_server(lab: Lab) -> None:
    """Views stay 1 and the id changes, servers share evenly, and s2 has all requests once s1 has left."""
    tables = do(lab, 1)
    assert {row["sessionViews"] for row in tables["refresh"]} == {1}
    assert len({row["id"] for row in tables["refresh"]}) == len(tables["refresh"])
    assert [(row["s1"], row["s2"]) for row in tables["count"]] == [(COUNT / 2, COUNT / 2)]
    assert [(row["s1"], row["s2"]) for row in tables["stopped"]] == [(0, COUNT)]


def test_each_cookie_keeps_a_user_at_its_server(lab: Lab) -> None:
    """With either cookie the views are counted on, one user stays at one server, and two are at two."""
    tables = do(lab, 2)
    for kind in ("insert", "prefix"):
        assert [row["sessionViews"] for row in tables[f"refresh-{kind}"]] == [2, 3, 4, 5]
        one, two = tables[f"count-{kind}"]
        assert sorted((one["s1"], one["s2"])) == [0, COUNT]
        assert (two["s1"], two["s2"]) == (COUNT, COUNT)


def test_drain_keeps_a_session_and_maintenance_loses_it(lab: Lab) -> None:
    """In DRAIN the session stays at s1 and new browsers get s2; in MAINT its views begin again at s2."""
    ready, drain, maint, again = do(lab, 3)["states"]
    assert [row["with session"] for row in (ready, drain, maint, again)] == ["s1", "s1", "s2", "s2"]
    assert (drain["sessionViews"] - ready["sessionViews"], maint["sessionViews"]) == (1, 1)
    assert set(ready["fresh browsers"].split()) == {"s1", "s2"}
    assert set(drain["fresh browsers"].split()) == set(maint["fresh browsers"].split()) == {"s2"}
    assert "s1" in again["fresh browsers"]


def test_a_health_check_takes_out_a_server_that_is_too_slow(lab: Lab) -> None:
    """250 ms only slow the users of s1, 2,500 ms move them; weights divide requests only without cookies."""
    count = 8
    tables = do(lab, 4, count)
    fast, slow, out = tables["delays"]
    assert [(row["s1"], row["s2"], row["failed"]) for row in (fast, slow, out)] == [
        (count, count, 0),
        (count, count, 0),
        (0, 2 * count, 0),
    ]
    assert float(slow["user 1"].split()[0]) >= count * 0.25
    assert "DOWN" in out["s1 is"]
    assert [sorted((row["s1"], row["s2"])) for row in tables["weights"]] == [[count, 2 * count], [0, 3 * count]] * 2


def test_other_algorithms_turn_away_from_a_slow_server(lab: Lab) -> None:
    """A slow server gets half of the requests by roundrobin; leastconn and random give it less, and answer sooner."""
    rows = {(row["servers"], row["algorithm"]): row for row in do(lab, 5)["algorithms"]}
    assert {row["failed"] for row in rows.values()} == {0}
    share = {key: int(row["s1"].split()[0]) for key, row in rows.items()}
    assert abs(share["s1 slow", "roundrobin"] - 50) <= 1
    for algorithm in ("leastconn", "random"):
        assert share["s1 slow", algorithm] < 40
        # roundrobin sends s1 half as many requests again as it can do, so a queue grows there.
        assert read_ms(rows["s1 slow", algorithm]["p99"]) < read_ms(rows["s1 slow", "roundrobin"]["p99"])


def read_ms(text: str) -> float:
    """Return a latency in a table, milliseconds."""
    return float(text.removesuffix(" ms"))


def test_the_command_prints_json(lab: Lab) -> None:
    """`lab task 3 --json` prints the tables and the text; a number that is no task is refused."""
    argv = [sys.executable, "-m", "serf_haproxy", "lab", "task", "3", "--json", "--dir", lab.lab_dir]
    argv += ["--port-base", str(lab.port_base)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=True)
    found = json.loads(said.stdout)
    assert found["task"] == 3
    assert len(found["tables"]["states"]) == 4
    assert any("DRAIN" in line for line in found["text"])
    argv[5] = "6"
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_task_leaves_nothing(lab: Lab, number: signal.Signals) -> None:
    """A signal ends a task with one line and 128 plus its number; a second one does not interrupt the cleanup."""
    place = ["--dir", lab.lab_dir, "--port-base", str(lab.port_base)]
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "serf_haproxy", "lab", "task", "1", *place]
    nodes, is_stopping = Path(lab.lab_dir, "nodes", "s1"), Path(lab.lab_dir, "lb1/service/.s6-svscan/stopping")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as task:
        wait_for(nodes.exists, "s1 is started")
        task.send_signal(number)
        wait_for(is_stopping.exists, "the balancer is being stopped")
        task.send_signal(number)
        said, _ = task.communicate(timeout=60)
    assert task.returncode in (128 + number, -number), said
    assert said.endswith("serf-haproxy: interrupted\n")
    assert "Traceback" not in said
    assert running_in(Path(lab.lab_dir)) == []
    assert not Path(lab.lab_dir).exists()
