"""A lab with a service that scales: what its autoscaler says and does, and requests to it."""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

import workers
from integration.evidence import Evidence
from integration.proxy import wait_for
from integration.test_daemon import COMMAND
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.services import Wish
from serf_haproxy.lab.traffic import Result, Traffic, make_traffic

MOST = 4
_WAIT_S = 90.0
_ANSWER_S = 75.0  # longer than a request waits in HAProxy before it gets 503


class Stage:
    """A lab with one service that scales, from 1 server to MOST of them where not said otherwise.

    Args:
        lab: The lab.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @property
    def nodes(self) -> list[str]:
        """The nodes whose processes should run."""
        return [row["name"] for row in self.lab.status()["nodes"] if row["state"] == "alive"]

    def notes(self, name: str = "lb1") -> dict[str, Any]:
        """Return the notes of a balancer's autoscaler; nothing before it has made some."""
        with contextlib.suppress(FileNotFoundError):
            notes: dict[str, Any] = json.loads(Path(self.lab.lab_dir, name, "state", "autoscale.json").read_text())
            return notes
        return {}

    def slots(self, name: str = "lb1") -> dict[str, str]:
        """Return what the autoscaler of a balancer says of its slots."""
        slots: dict[str, str] = self.notes(name).get("services", {}).get("shop", {}).get("slots", {})
        return slots

    @property
    def in_force(self) -> str:
        """The tables of the services file that the first balancer has in force."""
        return Path(self.lab.lab_dir, "lb1", "state", "services.json").read_text()

    def serving(self, name: str = "lb1") -> list[str]:
        """Return the slots in service, as the autoscaler of a balancer sees them."""
        return [slot for slot, state in self.slots(name).items() if state == "serving"]

    def happened(self, what: str, name: str = "lb1") -> int:
        """Return how often something has happened, by the history."""
        return len(self.list_times(what, name))

    def list_times(self, what: str, name: str = "lb1") -> list[float]:
        """Return when something has happened, by the history, seconds since the epoch."""
        times_s: list[float] = []
        for file in ("history.jsonl.1", "history.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                lines = map(json.loads, Path(self.lab.lab_dir, name, "state", file).read_text().splitlines())
                times_s += [line["at_s"] for line in lines if line["kind"] == "scale" and line["what"] == what]
        return times_s

    def wait(self, check: Callable[[], bool], timeout_s: float = _WAIT_S) -> None:
        """Wait for something; the fault shows the log of the autoscaler."""
        log = Path(self.lab.lab_dir, "lb1", "log", "autoscale", "current")
        wait_for(check, lambda: log.read_text(errors="replace")[-3000:], timeout_s)

    def control(self, *words: str, service: str = "autoscale", name: str = "lb1") -> None:
        """Give orders to s6 about a service of a balancer."""
        subprocess.run(["s6-svc", *words, f"{self.lab.lab_dir}/{name}/service/{service}"], check=True)

    def rewrite(self, service: str, old: str, new: str, name: str = "lb1") -> None:
        """Change the run script of a service of a balancer, and restart it with that."""
        path = Path(self.lab.lab_dir, name, "service", service, "run")
        text = path.read_text()
        assert text.count(old) == 1, text
        path.write_text(text.replace(old, new))
        self.control("-r", service=service, name=name)

    def command(self, *words: str) -> str:
        """Run a command of the first balancer; return what it prints."""
        done = subprocess.run(
            [*COMMAND, *words],
            env=os.environ | self.lab.env("lb1"),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def replace(self, key: str, line: str) -> None:
        """Replace the line of a key of the first balancer's services file, and wait until it is in force."""
        path = Path(self.lab.lab_dir, "lb1", "services.toml")
        (old,) = [each for each in path.read_text().splitlines() if each.startswith(f"{key} = ")]
        before = self.in_force
        self.change(f"\n{old}\n", f"\n{line}\n")
        self.wait(lambda: self.in_force != before)

    def kill(self, name: str) -> None:
        """Kill all processes of a balancer, as a power cut would; what starts and stops nodes is on another machine."""
        root = psutil.Process(next(one["svscan_pid"] for one in self.lab.status()["balancers"] if one["name"] == name))
        stopped = []
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # `haproxy -c` and handlers end at any time
                if process == root or "lab" not in process.cmdline():
                    process.suspend()
                    stopped.append(process)
        for process in stopped:
            process.kill()

    def change(self, old: str, new: str, name: str = "lb1") -> None:
        """Change the services file of a balancer."""
        path = Path(self.lab.lab_dir, name, "services.toml")
        text = path.read_text()
        assert text.count(old) == 1
        new_path = path.with_suffix(".new")
        new_path.write_text(text.replace(old, new))
        new_path.rename(path)


@contextlib.contextmanager
def make_stage(directory: Path, balancers: int = 1, most: int = MOST) -> Iterator[Stage]:
    """Run a lab for the length of a block, and have its first server serve."""
    lab = Lab(directory / "lab", next(workers.lab_bases()))
    try:
        lab.up(0, balancers, services=[Wish("shop", "http", 0, most)])
        stage = Stage(lab)
        stage.wait(lambda: stage.serving() == ["shop-1"])
        yield stage
    finally:
        lab.down()


@contextlib.contextmanager
def watching(stage: Stage, count_others: Callable[[], int] = lambda: 0) -> Iterator[list[int]]:
    """Note how many servers have processes, with others, again and again, for the length of a block."""
    counts: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            counts.append(len(stage.nodes) + count_others())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


class Doors(Lab):
    """The same lab, of which clients know one balancer alone.

    Args:
        lab: The lab.
        name: The balancer.
    """

    def __init__(self, lab: Lab, name: str) -> None:
        super().__init__(lab.lab_dir)
        self._name = name

    def status(self) -> dict[str, Any]:
        """Return the parts of the lab, without the other balancers."""
        status = super().status()
        return status | {"balancers": [one for one in status["balancers"] if one["name"] == self._name]}


def load(stage: Stage, rate: float, duration_s: float, work_s: float = 0.02, door: str = "") -> Result:
    """Make requests at times that do not depend on the answers, to all balancers or to one.

    Where some fail, what HAProxy says of them is printed: pytest shows it if the test fails.
    """
    wanted = Traffic(rate=rate, duration_s=duration_s, work_s=work_s, service="shop", answer_s=_ANSWER_S)
    evidence = Evidence(stage.lab.lab_dir)
    result = make_traffic(Doors(stage.lab, door) if door else stage.lab, wanted, is_quiet=True)
    if result.faults:
        print(evidence.tell(result.faults), flush=True)
    return result


@contextlib.contextmanager
def loading(
    stage: Stage, rate: float, duration_s: float, work_s: float = 0.02, door: str = ""
) -> Iterator[list[Result]]:
    """Make requests beside a block, and after it until they are over."""
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(load(stage, rate, duration_s, work_s, door)))
    thread.start()
    try:
        yield results
    finally:
        thread.join()
