"""The tour behind `make demo`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import workers
from integration.proxy import wait_for
from integration.test_lab import lab, running_in, seen_through
from serf_haproxy.lab.cluster import Lab

PORT_BASE = str(workers.LAB_BASE + 90)


@pytest.fixture
def lab_dir(short_dir: Path) -> Iterator[Path]:
    """Return the directory for a lab; a lab that is there after the test is taken down."""
    yield short_dir / "lab"
    Lab(short_dir / "lab").down()


def begin(lab_dir: Path, *options: str) -> "subprocess.Popen[str]":
    """Start the tour."""
    words = ["lab", "demo", *options, "--dir", str(lab_dir), "--port-base", PORT_BASE]
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "serf_haproxy", *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_to(tour: "subprocess.Popen[str]", words: str) -> str:
    """Read the output of a tour up to a line with these words; return the line."""
    assert tour.stdout
    said = []
    for line in tour.stdout:
        said.append(line)
        if words in line:
            return line
    raise AssertionError("".join(said))


def test_the_steps_of_the_tour_succeed(lab_dir: Path) -> None:
    """Every step of `lab demo --once` succeeds, no request fails, and no process or file is left.

    A canary gets another share without a reload, and a drained server keeps the client that has its cookie.
    """
    with begin(lab_dir, "--once") as tour:
        said, _ = tour.communicate(timeout=300)
    assert tour.returncode == 0, said
    assert "All steps succeeded" in said
    assert re.findall(r"failed: (?!0\.)", said) == []
    steps = re.split(r"^━━ [0-9]+\. ", said, flags=re.MULTILINE)
    shares = [re.findall(r"^  (api[0-9]) .* ([0-9]+) %$", step, re.MULTILINE) for step in steps]
    canary, moved, drained = (dict(found) for found in shares if found)
    assert int(canary["api3"]) <= 8
    assert 47 <= int(moved["api3"]) <= 53
    assert drained.keys() == {"api2", "api3"}
    assert all("without a reload" in step for step in steps[-2:])
    assert "Requests with the cookie of api1: 20, answered by it: 20." in steps[-1]
    assert not lab_dir.exists()


def test_a_tour_leaves_a_running_lab_alone(lab_dir: Path) -> None:
    """When a lab is up already, the tour reports it and ends with exit code 100; that lab keeps serving."""
    started = lab(lab_dir, "up", "--port-base", PORT_BASE, "--nodes", "1", "--json")
    assert started.returncode == 0, started.stderr
    refused = lab(lab_dir, "demo", "--once")
    assert refused.returncode == 100
    assert f"there is a lab at {lab_dir} already" in refused.stderr
    assert seen_through(json.loads(started.stdout)["balancers"][0]) == {"127.0.1.1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_tour_says_so_and_leaves_nothing(lab_dir: Path, number: signal.Signals) -> None:
    """A signal stops the tour with exit code 128 plus its number; a second one does not interrupt the cleanup."""
    with begin(lab_dir, "--once") as tour:
        read_to(tour, "1. Three nodes join")
        tour.send_signal(number)
        is_stopping = lab_dir / "lb1" / "service" / ".s6-svscan" / "stopping"
        wait_for(is_stopping.exists, "the balancer is being stopped")
        tour.send_signal(number)
        said, _ = tour.communicate(timeout=120)
    assert tour.returncode == 128 + number, said
    assert "All steps succeeded" not in said
    assert running_in(lab_dir) == []
    assert not lab_dir.exists()


def test_the_tour_stays_up_until_it_is_interrupted(lab_dir: Path) -> None:
    """Without --once the lab stays up and the stats page is shown; Ctrl-C then ends the tour with exit code 0."""
    with begin(lab_dir) as tour:
        found = re.search(r"http://127\.0\.0\.1:[0-9]+/", read_to(tour, "  page  "))
        assert found
        assert "<title>" in requests.get(found[0], timeout=10).text
        read_to(tour, "stats page")
        read_to(tour, "Press Ctrl-C to stop")
        assert len(running_in(lab_dir)) > 10
        os.kill(tour.pid, signal.SIGINT)
        said, _ = tour.communicate(timeout=120)
    assert tour.returncode == 0, said
    assert running_in(lab_dir) == []
