"""A balancer under load that a fault is done to, what has to be true once it has healed, and the summary of it all."""

import contextlib
import dataclasses
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from integration.load import Load, run_load
from integration.passes import Passes
from integration.proxy import Proxy, wait_for
from serf_haproxy.control import apply, goal
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.haproxy import config_file, runtime
from serf_haproxy.serf import nodes

IN_FORCE = (Verdict.UNCHANGED, Verdict.APPLIED, Verdict.RELOADED)
_AFTER_S = 1.0  # a client may tell of a HAProxy that was away a little after it is back
_MOST_PASSES = 3
# What may stand beside the live file, and in the state directory, when all is well.
_CONFIG_FILES = {"", ".good", ".state", ".rejected", ".before"}
_STATE_FILES = {"last_pass.json", "flaps.json", "served", "template.good", "pass.lock", "resident.lock", "released"}


@dataclasses.dataclass
class Row:
    """What became of one kind of fault.

    Attributes:
        injected_count: How often it was done.
        healed_count: How often everything was right afterwards without a hand.
        away_count: Requests that failed while HAProxy itself was away: nobody could have answered them.
        failed_count: Other requests that failed.
        longest_wrong_s: The longest time from the end of the fault until everything was right.
    """

    injected_count: int = 0
    healed_count: int = 0
    away_count: int = 0
    failed_count: int = 0
    longest_wrong_s: float = 0.0


SUMMARY: dict[str, Row] = {}


def add_rows(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the rows of a worker, by name, to the summary."""
    for name, fields in rows.items():
        row = SUMMARY.setdefault(name, Row())
        for field, value in fields.items():
            add = max if field == "longest_wrong_s" else sum
            setattr(row, field, add((getattr(row, field), value)))


def summarize() -> list[str]:
    """Return the table of all faults that this test run has done."""
    titles = ("injected", "healed", "failed, HAProxy away", "failed otherwise", "longest wrong, s")
    lines = [f"{'fault':44}" + "".join(f"{title:>22}" for title in titles)]
    total = Row()
    for name, row in [*sorted(SUMMARY.items()), ("all", total)]:
        figures = (row.injected_count, row.healed_count, row.away_count, row.failed_count)
        lines.append(f"{name:44}" + "".join(f"{figure:22}" for figure in figures) + f"{row.longest_wrong_s:22.2f}")
        total.injected_count += row.injected_count
        total.healed_count += row.healed_count
        total.away_count += row.away_count
        total.failed_count += row.failed_count
        total.longest_wrong_s = max(total.longest_wrong_s, row.longest_wrong_s)
    return lines if SUMMARY else []


class Failures(list[str]):
    """The failures of a load, with the time of each."""

    def __init__(self) -> None:
        super().__init__()
        self.times_s: list[float] = []

    def append(self, failure: str) -> None:
        """Note one."""
        self.times_s.append(time.monotonic())
        super().append(failure)


class Bench:
    """A HAProxy with real applications behind it and clients before it.

    Attributes:
        proxy: The HAProxy and its settings.
        ports: Port by address of the applications; all of them answer all the time.
        load: The clients.
        row: The line of the summary that counts here.
    """

    def __init__(self, proxy: Proxy, ports: dict[str, int], name: str) -> None:
        host, _, port = proxy.settings.frontend_bind.rpartition(":")
        self.proxy = proxy
        self.ports = ports
        self.failures = Failures()
        self.load = Load(host, int(port), think_s=0.02, failures=self.failures)
        self.row = SUMMARY.setdefault(name, Row())
        self._away_s: list[tuple[float, float]] = []
        self.balance = "roundrobin"
        self.wanted: set[str] = set()

    def record(self, *names: str, status: str = "alive", **tags: object) -> None:
        """Have members be web1, web2, ...: the first application, the second, ..."""
        places = list(self.ports.items())
        for name in names:
            address, port = places[int(name[3:]) - 1]
            self.proxy.record(name, port, address, status, **tags)
            self.wanted = self.wanted | {name} if status == "alive" else self.wanted - {name}

    def turn(self, name: str, by_reload: bool = False) -> None:
        """Have a member come, or leave where it is; where asked, change what only a reload can change as well."""
        self.record(name, status="left" if name in self.wanted else "alive")
        if by_reload:
            self.balance = {"roundrobin": "leastconn", "leastconn": "roundrobin"}[self.balance]

    def environment(self) -> dict[str, str]:
        """Return the settings for a pass."""
        return self.proxy.environment | {"SERF_HAPROXY_BALANCE": self.balance}

    def run_pass(self) -> Outcome:
        """Make one pass in this process."""
        return self.proxy.run_pass(balance=self.balance)

    def wait_requests(self, count: int = 20) -> None:
        """Wait until some more requests were answered."""
        since = self.load.ok_count
        wait_for(lambda: self.load.ok_count >= since + count, f"{count} more requests are answered")

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Say that nobody can be served during a block, because HAProxy is away."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self._away_s.append((started_s, time.monotonic() + _AFTER_S))

    def restart(self, number: int = signal.SIGKILL) -> None:
        """Start HAProxy again after its processes have gone, as s6 would."""
        assert self.proxy.process
        self.proxy.process.wait(20)
        self.proxy.stop(number)
        self.proxy.start()

    def worker_pid(self) -> int:
        """Return the process id of the newest worker."""
        assert self.proxy.process
        return max(
            psutil.Process(self.proxy.process.pid).children(), key=lambda each: (each.create_time(), each.pid)
        ).pid

    def find_wrong(self) -> str:
        """Say what is not as it should be; nothing when all is."""
        settings = self.proxy.settings.replace(balance=self.balance)
        running = runtime.read_running(settings)
        if running is None or running.servers is None or not running.is_open:
            return "HAProxy does not answer"
        names = {name for (_, name), seen in running.servers.items()}
        if names != self.wanted:
            return f"HAProxy has {sorted(names)} instead of {sorted(self.wanted)}"
        if config_file.read_live(settings) != goal.compute(settings, goal.read_pool(settings).servers).text:
            return "the live file is another"
        if not apply.runs_published(settings):
            return "HAProxy runs something else than the live file"
        return self.find_stray()

    def find_stray(self) -> str:
        """Name a file that nobody needs any more, or one that is missing; nothing when all is in order."""
        settings = self.proxy.settings
        config_dir, config_name = os.path.split(settings.config_path)
        beside = {name.removeprefix(config_name) for name in os.listdir(config_dir) if name.startswith(config_name)}
        state = {name for name in os.listdir(settings.state_dir) if not name.endswith(".log")}
        files, strays = nodes.load(settings.nodes_dir)
        found = [f"{config_name}{end}" for end in beside - _CONFIG_FILES] + sorted(state - _STATE_FILES)
        found += [stray.name for stray in strays] + sorted(self.wanted - files.keys())
        if Path(settings.server_state_path).exists() and Path(settings.server_state_path).read_text() != "1\n":
            found.append(f"a state file that the next start would believe: {settings.server_state_path}")
        return " ".join(found)

    def heal(self) -> None:
        """Assert that, now that the fault is gone, passes make everything right, and then find nothing to do."""
        self.row.injected_count += 1
        gone_s = time.monotonic()
        for _ in range(_MOST_PASSES):
            outcome = self.run_pass()
            if outcome.verdict in IN_FORCE and not self.find_wrong():
                break
        wait_for(lambda: self.run_pass().verdict is Verdict.UNCHANGED and not self.find_wrong(), self.find_wrong, 10)
        self.count_healed(gone_s)

    def heal_alone(self, timeout_s: float = 20.0) -> None:
        """Assert that everything comes right by itself, now that the fault is gone."""
        self.row.injected_count += 1
        gone_s = time.monotonic()
        wait_for(lambda: not self.find_wrong(), self.find_wrong, timeout_s)
        self.count_healed(gone_s)

    def count_healed(self, gone_s: float) -> None:
        """Note that everything is right since just now."""
        self.row.longest_wrong_s = max(self.row.longest_wrong_s, time.monotonic() - gone_s)
        self.row.healed_count += 1

    def judge(self) -> None:
        """Count the requests that failed; assert that none did that could have been answered."""
        lost = [
            failure
            for failure, at_s in zip(self.failures, self.failures.times_s, strict=True)
            if not any(start_s <= at_s <= end_s for start_s, end_s in self._away_s)
        ]
        self.row.away_count += len(self.failures) - len(lost)
        self.row.failed_count += len(lost)
        assert lost == []
        assert self.load.ok_count > 0


@contextlib.contextmanager
def running_bench(proxy: Proxy, ports: dict[str, int], name: str) -> Iterator[Bench]:
    """Have web1 and web2 serve clients for the length of a block; no process of ours is left afterwards."""
    bench = Bench(proxy, ports, name)
    bench.record("web1", "web2")
    assert bench.run_pass().verdict in IN_FORCE
    wait_for(lambda: {view.status for view in (runtime.read_servers(proxy.settings) or {}).values()} == {"UP"}, "UP")
    before = _family()
    with run_load(bench.load, 2):
        bench.wait_requests()
        yield bench
        bench.wait_requests()
    bench.judge()
    wait_for(lambda: _family() <= before, lambda: f"processes are left: {_family() - before}")


def _family() -> set[str]:
    """Return the command lines of all processes below this one, without those of HAProxy, which come and go."""
    lines = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            lines.add(" ".join(child.cmdline()))
    return {line for line in lines if line and not re.match(r"haproxy .*-S ", line)}


@contextlib.contextmanager
def running_passes() -> Iterator[Passes]:
    """Have a process to fork passes from for the length of a block."""
    passes = Passes()
    try:
        yield passes
    finally:
        passes.close()
