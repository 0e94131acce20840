"""How fast servers come: after a crowd of five times the load, and for the first request of a service without any.

Both print their figures (`pytest -s`). They are compared with the starts themselves, so a slow machine fails none.
"""

import concurrent.futures
import http.client
import json
import math
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from integration.stage import Stage, load, loading, make_stage
from serf_haproxy.autoscale.gauge import ask_for, read_gauges
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.socket import ask

pytestmark = pytest.mark.alone

SERVER_MAXCONN = 4  # of a lab
MANY = 8


class Point(NamedTuple):
    """What HAProxy has at a moment: requests in flight or queued, and the servers that get requests."""

    at_s: float
    demand: int
    servers: frozenset[str]

    @property
    def is_crowded(self) -> bool:
        """Whether more requests wait than chance explains."""
        places = SERVER_MAXCONN * len(self.servers)
        return self.demand > places + math.sqrt(places)


class Eye:
    """Looks at HAProxy's statistics again and again, for the length of a block."""

    def __init__(self, stage: Stage) -> None:
        self._socket = f"{stage.lab.lab_dir}/lb1/admin.sock"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.points: list[Point] = []

    def __enter__(self) -> "Eye":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            try:
                gauge = read_gauges(ask(self._socket, ask_for(["shop"]), 1.0)).get("shop")
            except HaproxyFault:
                continue
            if gauge:
                names = frozenset(name for name, row in gauge.servers.items() if row.is_open)
                self.points.append(Point(time.time(), gauge.demand, names))

    def find_opening(self, name: str) -> float:
        """Return when a server first got requests."""
        return next(point.at_s for point in self.points if name in point.servers)


def list_starts(stage: Stage) -> dict[str, float]:
    """Return when each slot was last told to start, by the history."""
    lines = map(json.loads, Path(stage.lab.lab_dir, "lb1", "state", "history.jsonl").read_text().splitlines())
    return {line["node"]: line["at_s"] for line in lines if (line["kind"], line["what"]) == ("scale", "start")}


def test_the_queue_of_a_crowd_is_gone_soon_after_the_start_of_servers(short_dir: Path) -> None:
    """Five times the load: at most two seconds after the slowest start the queue is empty, and no request is lost."""
    with make_stage(short_dir, most=MANY) as stage, Eye(stage) as eye:
        assert load(stage, 10, 5, work_s=0.2).faults == {}
        began_s = time.time()
        with loading(stage, 50, 30, work_s=0.2) as results:
            stage.wait(lambda: len(stage.serving()) > 1)
        assert results[0].faults == {}
        started = {name: at_s for name, at_s in list_starts(stage).items() if at_s > began_s}
        spans_s = sorted(eye.find_opening(name) - at_s for name, at_s in started.items())
        last_s = max(point.at_s for point in eye.points if point.is_crowded) - began_s
    spans = f"{len(spans_s)} starts took {spans_s[0]:.1f} to {spans_s[-1]:.1f} s"
    told_s = min(started.values()) - began_s
    print(f"\ntold to start after {told_s:.1f} s; {spans}; the queue was gone after {last_s:.1f} s")
    assert last_s <= spans_s[-1] + 2


def test_the_first_request_waits_for_the_start_of_the_application_alone(short_dir: Path) -> None:
    """Without any server the first requests wait; they are answered soon after the application itself can answer."""
    with make_stage(short_dir) as stage:
        stage.change("in_window_s = 10", "in_window_s = 10\nmin = 0\nzero_after_s = 10")
        stage.wait(lambda: stage.nodes == [])
        stage.wait(lambda: "shop-1" not in stage.command("maint", "list"))
        door = urlsplit(stage.lab.status()["balancers"][0]["frontend_url"])
        began_s = time.time()
        with concurrent.futures.ThreadPoolExecutor(21) as pool:
            ready = pool.submit(_wait_for_application, stage)
            answers = [
                pool.submit(_wait_for_answer, str(door.hostname), int(door.port or 80), "/shop") for _ in range(20)
            ]
            ready_s = ready.result() - began_s
            answered_s = sorted(answer.result() - began_s for answer in answers)
        told_s = list_starts(stage)["shop-1"] - began_s
    print(
        f"\ntold to start after {told_s:.2f} s, the application answers after {ready_s:.2f} s, "
        f"20 of 20 requests were answered after {answered_s[0]:.2f} to {answered_s[-1]:.2f} s"
    )
    assert answered_s[-1] <= 1.3 * ready_s + 1


def _wait_for_application(stage: Stage) -> float:
    """Return when the application of a node that is started has first answered."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        for node in stage.lab.status()["nodes"]:
            if node["state"] == "alive":
                return _wait_for_answer(str(node["address"]), int(node["port"]), "/health")
    raise AssertionError("no node is started")


def _wait_for_answer(host: str, port: int, path: str) -> float:
    """Return when the first good answer came; at a closed port it is tried again, another answer is a failure."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            connection.request("GET", path)
            assert connection.getresponse().status == 200
            return time.time()
        except ConnectionRefusedError:
            time.sleep(0.01)
        finally:
            connection.close()
    raise AssertionError(f"{host}:{port} does not answer")
