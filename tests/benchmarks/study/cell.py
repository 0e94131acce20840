"""One cell of the study: one case, load, number of servers, algorithm and seed; run it and sum it up."""

import concurrent.futures
import dataclasses
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from measure import percentile

from serf_haproxy.lab.arrivals import Request, Work, make_requests
from serf_haproxy.lab.clients import ANSWER_S, Answer, Spec
from study import application, generator, sums
from study.algorithms import Algorithm
from study.cases import Case
from study.site import Site, running_site

CAPACITY = 1000.0  # requests a second of all servers together, whatever their number
LAG_S = 0.005  # the generator may be later than this with the following share of the requests, or the cell is void
LATE_SHARE = 0.01
# All answers, when the fault began and ended, seconds after the start, and the weights over time.
Found = tuple[list[Answer], tuple[float, float], list[Any]]
WARM_S = 2.0
_WEIGHTS_S = 0.5


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How long the parts of a cell last, seconds: from the fault to its end, and after that.

    Attributes:
        fault_s: From the fault to its end.
        rest_s: After the end of the fault, where the weights are static.
        measured_rest_s: The same, where they are measured.
    """

    fault_s: float = 10.0
    rest_s: float = 4.0
    measured_rest_s: float = 10.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """What to run."""

    case: Case
    load: int
    count: int
    algorithm: Algorithm
    seed: int
    lengths: Lengths

    @property
    def key(self) -> str:
        """Its name."""
        return f"{self.case.name} {self.load}% {self.count} {self.algorithm.name} #{self.seed}"

    def make_requests(self) -> list[Request]:
        """Return the requests; all algorithms of a case, load, number and seed begin with the same ones."""
        case = self.case
        work_s = self.count * application.WORKER_COUNT / CAPACITY
        return make_requests(self.seed, self.load / 100 * CAPACITY, self.end_s(), Work(case.service, work_s), case.skew)

    def end_s(self) -> float:
        """Return how long requests arrive, seconds."""
        rest_s = self.lengths.measured_rest_s if self.algorithm.is_measured else self.lengths.rest_s
        return WARM_S + self.lengths.fault_s + (rest_s if self.case.has_sick or not self.case.is_steady else 0.0)


def run_cell(cell: Cell, lag_s: float = LAG_S) -> dict[str, Any] | None:
    """Run a cell; return its results, or None when the generator was late: the machine is busy with other things.

    Args:
        cell: The cell.
        lag_s: A request that is sent later than this is late. With more than `LAG_S` there may be void results.
    """
    names = [f"s{number + 1}" for number in range(cell.count)]
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as text:
        directory = Path(text)
        settings = cell.algorithm.write_settings(directory)
        if cell.case.cookie:
            secret = directory / "cookie.secret"
            secret.write_text("0123456789abcdef" * 4)
            settings |= {"SERF_HAPROXY_COOKIE": cell.case.cookie, "SERF_HAPROXY_COOKIE_SECRET_FILE": str(secret)}
        with running_site(directory, names, settings, cell.case.balancer_count, cell.case.services) as site:
            found = _load(cell, site, names, lag_s)
    if found is None:
        return None
    answers, marks_s, weights = found
    result = sums.sum_up(cell, answers, marks_s, names)
    late_s = percentile([answer.lag_s for answer in answers], 99)
    return result | {"weights": weights, "lag_p99_ms": round(1000 * late_s, 2), "is_void": late_s > LAG_S}


def _load(cell: Cell, site: Site, names: list[str], lag_s: float) -> Found | None:
    """Send the requests; return the answers, when the fault began and ended, and the weights over time."""
    requests = cell.make_requests()
    late_count = int(LATE_SHARE * len(requests))
    spec = Spec(site.doors(), requests, "/items/{item}", bool(cell.case.cookie), lag_s, late_count)
    limit_s = cell.end_s() + 2 * ANSWER_S + 30
    argv = [sys.executable, generator.__file__]
    with (
        concurrent.futures.ThreadPoolExecutor() as threads,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process,
    ):
        assert process.stdin
        assert process.stdout
        limit = threading.Timer(limit_s, process.kill)
        limit.start()
        over = threading.Event()
        try:
            process.stdin.write(pickle.dumps(spec))
            process.stdin.close()
            start_s = pickle.load(process.stdout)
            watching = threads.submit(_watch, site, start_s, over)
            changing = threads.submit(_change, cell, site, names, start_s, over)
            said = process.stdout.read()
            if process.wait() == generator.LATE:
                over.set()
                return None
            answers = [Answer(*fields) for fields in pickle.loads(said)]
            marks_s = changing.result()
            over.set()
            return answers, marks_s, watching.result()
        finally:
            over.set()
            limit.cancel()
            process.kill()


def _change(
    cell: Cell, site: Site, names: list[str], start_s: float, over: threading.Event
) -> tuple[float, float] | None:
    """Make the fault and end it; return when, seconds after the start, or None when the cell is over before."""
    marks_s = []
    for act, at_s in ((cell.case.fault, WARM_S), (cell.case.heal, WARM_S + cell.lengths.fault_s)):
        if over.wait(max(0.0, start_s + at_s - time.monotonic())):
            return None
        marks_s.append(time.monotonic() - start_s)
        act(site, names)
    return marks_s[0], marks_s[1]


def _watch(site: Site, start_s: float, over: threading.Event) -> list[Any]:
    """Return the weights over time: seconds after the start and the weight of each server, where one changed."""
    weights: list[Any] = []
    while not over.wait(_WEIGHTS_S):
        seen = {name: round(weight, 2) for name, weight in sorted(site.read_weights().items())}
        if not weights or weights[-1][1] != seen:
            weights.append((round(time.monotonic() - start_s, 2), seen))
    return weights
