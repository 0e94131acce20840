"""A balancer under load for fault injection, checks of its recovery, and the summary of all faults."""

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

import probe
from integration.load import Load, run_load
from integration.passes import Passes
from integration.proxy import Proxy, wait_for
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.serf import nodes

IN_FORCE = (Verdict.UNCHANGED, Verdict.APPLIED, Verdict.RELOADED)
_AFTER_S = 1.0  # a client may report an outage shortly after HAProxy is back
_MOST_PASSES = 3
# The files that a healthy balancer may have beside the live file and in the state directory.
_CONFIG_FILES = {"", ".good", ".state", ".rejected", ".before"}
_STATE_FILES = {"last_pass.json", "flaps.json", "known.json", "served", "template.good", "pass.lock", "released"}
_STATE_FILES |= {"daemon.lock", "resident.lock", "history.jsonl"}


@dataclasses.dataclass
class Row:
    """The results of one kind of fault.

    Attributes:
        injected_count: How often the fault was injected.
        healed_count: How often the balancer recovered without help.
        away_count: Requests that failed while HAProxy itself was down, so that no request could be answered.
        failed_count: Other requests that failed.
        longest_wrong_s: The longest time from the end of the fault until the balancer had recovered.
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
    """Return the table of all faults that this test run has injected."""
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
    """The failures of a load and their times."""

    def __init__(self) -> None:
        super().__init__()
        self.times_s: list[float] = []

    def append(self, failure: str) -> None:
        """Add a failure and its time."""
        self.times_s.append(time.monotonic())
        super().append(failure)


class Bench:
    """A HAProxy with real web applications behind it and clients in front of it.

    Attributes:
        proxy: The HAProxy and its settings.
        ports: Port by address of the web applications, which always answer.
        load: The clients.
        row: The row of the summary in which this bench counts.
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
        """Write the node files of members named web1, web2, ..., for the first, second, ... application."""
        places = list(self.ports.items())
        for name in names:
            address, port = places[int(name[3:]) - 1]
            self.proxy.record(name, port, address, status, **tags)
            self.wanted = self.wanted | {name} if status == "alive" else self.wanted - {name}

    def turn(self, name: str, by_reload: bool = False) -> None:
        """Let a member join, or leave if it is there; with by_reload also change a setting that needs a reload."""
        self.record(name, status="left" if name in self.wanted else "alive")
        if by_reload:
            self.balance = {"roundrobin": "leastconn", "leastconn": "roundrobin"}[self.balance]

    def environment(self) -> dict[str, str]:
        """Return the settings for a pass."""
        return self.proxy.environment | {"SERF_HAPROXY_BALANCE": self.balance}

    def run_pass(self) -> Outcome:
        """Run one pass in this process."""
        return self.proxy.run_pass(balance=self.balance)

    def wait_requests(self, count: int = 20) -> None:
        """Wait until this many more requests have been answered."""
        since = self.load.ok_count
        wait_for(lambda: self.load.ok_count >= since + count, f"{count} more requests are answered")

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Count the failures during a block as those of a HAProxy that is down."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self._away_s.append((started_s, time.monotonic() + _AFTER_S))

    def restart(self, number: int = signal.SIGKILL) -> None:
        """Start HAProxy again after its processes have ended, as s6 does."""
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
        """Return a description of what is wrong, "" when nothing is."""
        settings = self.proxy.settings.replace(balance=self.balance)
        running = probe.read_running(settings)
        if running is None or running.servers is None or not running.is_open:
            return "HAProxy does not answer"
        # HAProxy deletes a server in maintenance after its last connection, also an idle one, which takes some seconds.
        names = {name for (_, name), seen in running.servers.items() if not seen.is_maintained}
        if names != self.wanted:
            return f"HAProxy has {sorted(names)} instead of {sorted(self.wanted)}"
        if probe.read_live(settings) != probe.render(settings, probe.decide(settings).servers).text:
            return "the live file differs from the expected one"
        if not probe.runs_published(settings):
            return "HAProxy runs something else than the live file"
        return self.find_stray()

    def find_stray(self) -> str:
        """Return the names of unexpected files and of missing node files, "" when there are none."""
        settings = self.proxy.settings
        config_dir, config_name = os.path.split(settings.config_path)
        beside = {name.removeprefix(config_name) for name in os.listdir(config_dir) if name.startswith(config_name)}
        state = {name for name in os.listdir(settings.state_dir) if not name.endswith(".log")}
        files, strays = nodes.load(settings.nodes_dir)
        found = [f"{config_name}{end}" for end in beside - _CONFIG_FILES] + sorted(state - _STATE_FILES)
        found += [stray.name for stray in strays] + sorted(self.wanted - files.keys())
        if Path(settings.server_state_path).exists() and Path(settings.server_state_path).read_text() != "1\n":
            found.append(f"a state file that the next start would use: {settings.server_state_path}")
        return " ".join(found)

    def heal(self) -> None:
        """Assert that after the fault a few passes repair everything and later passes find nothing to do."""
        self.row.injected_count += 1
        gone_s = time.monotonic()
        for _ in range(_MOST_PASSES):
            outcome = self.run_pass()
            if outcome.verdict in IN_FORCE and not self.find_wrong():
                break
        wait_for(lambda: self.run_pass().verdict is Verdict.UNCHANGED and not self.find_wrong(), self.find_wrong, 10)
        self.count_healed(gone_s)

    def heal_alone(self, timeout_s: float = 20.0) -> None:
        """Assert that the daemon repairs everything by itself after the fault."""
        self.row.injected_count += 1
        gone_s = time.monotonic()
        wait_for(lambda: not self.find_wrong(), self.find_wrong, timeout_s)
        self.count_healed(gone_s)

    def count_healed(self, gone_s: float) -> None:
        """Count a recovery that has just completed."""
        self.row.longest_wrong_s = max(self.row.longest_wrong_s, time.monotonic() - gone_s)
        self.row.healed_count += 1

    def judge(self) -> None:
        """Count the failed requests; assert that none failed while HAProxy was up."""
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
    """Let web1 and web2 serve clients for the duration of a block; assert that no child process remains."""
    bench = Bench(proxy, ports, name)
    bench.record("web1", "web2")
    assert bench.run_pass().verdict in IN_FORCE
    wait_for(lambda: {view.status for view in (probe.read_servers(proxy.settings) or {}).values()} == {"UP"}, "UP")
    before = _family()
    with run_load(bench.load, 2):
        bench.wait_requests()
        yield bench
        bench.wait_requests()
    bench.judge()
    wait_for(lambda: _family() <= before, lambda: f"processes are left: {_family() - before}")


def _family() -> set[str]:
    """Return the command lines of all descendants of this process except HAProxy's, whose number varies."""
    lines = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            lines.add(" ".join(child.cmdline()))
    return {line for line in lines if line and not re.match(r"haproxy .*-S ", line)}


@contextlib.contextmanager
def running_passes() -> Iterator[Passes]:
    """Run the process that forks passes for the duration of a block."""
    passes = Passes()
    try:
        yield passes
    finally:
        passes.close()
