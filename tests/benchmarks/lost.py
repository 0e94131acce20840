"""Requests lost, and the latency of the others, while the membership changes under a constant load.

Usage: .venv/bin/python tests/benchmarks/lost.py [--changes 200] [--requests 1000000] [--rate 2500] [--reload]

Joins, leaves, crashes, rejoins under another address, changed weights and ports, and drains happen one after another
under new connections (`--rate` a second) and 100 keep-alive clients (a fifth of that), while every answer is looked at.
It ends when there were `--changes` of them and `--requests` on new connections; those of the keep-alive clients come
on top.
Quiet phases and phases with changes take turns, so that the machine's noise meets both. Every second change is told by
a hint of Serf's log first and by the event a second later, the others by the event alone. With `--reload` the
algorithm is one that takes no servers at run time, so that changes go by reload. The backends of a phase are started
before it: their machines are not the balancer's.
"""

import argparse
import contextlib
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends import Backend, body_of
from client import Load, Worker, run_workers
from measure import Report, make_parser, median, percentile
from membership import Membership, Node, serving
from resident import Resident, running_resident

from integration.proxy import free_port, running_proxy, wait_for

KINDS = ("join", "weight", "leave", "drain", "rejoin", "crash", "port", "undrain")
START_COUNT = 4
SPARE_COUNT = 8
PAUSE_S = 0.5  # between two changes
LONGEST_S = 1800.0
LEAVE_S = 0.5  # a node that leaves goes on serving for so long, as its supervisor has it
EVENT_S = 1.0  # Serf holds an event back for so long
FAILED_S = 1.0  # so long after a crash, or longer, Serf says that a member failed
PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 99.99, 100)
NAMES = [f"web{number}" for number in range(1, 1000)]


class Change(NamedTuple):
    """One change of the membership: when it began, and how long it took until HAProxy had it."""

    started_s: float
    kind: str
    is_hinted: bool
    took_s: float


class Phase(NamedTuple):
    """A time with changes, or without any."""

    kind: str
    from_s: float
    to_s: float


class Fleet:
    """The nodes, their backends, and the changes of both."""

    def __init__(self, directory: Path, resident: Resident, membership: Membership) -> None:
        self._directory, self._resident, self._membership = directory, resident, membership
        self._names = iter(NAMES)
        self._spares: list[Backend] = []
        self._ended: list[Backend] = []
        self._running: dict[str, Backend] = {}
        self._gone: list[str] = []
        self._drained: list[str] = []
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self.done: list[Change] = []

    def prepare(self) -> None:
        """Have spare backends, and let those that were stopped end."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        while self._ended:
            self._ended.pop().end()
        while len(self._spares) < SPARE_COUNT:
            name = next(self._names)
            address = f"127.0.{1 + len(name)}.{1 + int(name[3:]) % 250}"
            self._spares.append(Backend(self._directory, name, address, free_port(address)))

    def end(self) -> None:
        """End every backend."""
        for thread in self._threads:
            thread.join()
        for backend in (*self._spares, *self._ended, *self._running.values()):
            backend.process.kill()
            backend.process.wait(10)

    def can(self, kind: str) -> bool:
        """Tell whether a change is possible now."""
        return {
            "rejoin": bool(self._gone),
            "undrain": bool(self._drained),
            "leave": len(self._running) - len(self._drained) >= START_COUNT,
            "crash": len(self._running) - len(self._drained) >= START_COUNT,
            "drain": len(self._running) - len(self._drained) >= START_COUNT,
        }.get(kind, True)

    def change(self, kind: str) -> None:
        """Make a change and wait until HAProxy has it."""
        started_s = time.monotonic()
        name, event, is_there = getattr(self, f"_{kind}")()
        node = self._membership.nodes[name]
        number = next(self._numbers)
        is_hinted = (number + number // len(KINDS)) % 2 == 0  # of each kind every second one
        if is_hinted:
            self._membership.hint(event, [node])
            self._later(EVENT_S, lambda: self._membership.event(event, [node]))
        else:
            self._membership.event(event, [node])
        wait_for(is_there, lambda: f"{kind} of {name}: {self._resident.up()}", 20)
        self.done.append(Change(started_s, kind, is_hinted, time.monotonic() - started_s))

    def _join(self, name: str = "") -> tuple[str, str, Callable[[], bool]]:
        backend = self._spares.pop()
        name = name or backend.name
        self._running[name] = backend
        self._say("member-join", name, backend)
        return name, "member-join", lambda: self._has(name)

    def _rejoin(self) -> tuple[str, str, Callable[[], bool]]:
        return self._join(self._gone.pop(0))

    def _leave(self) -> tuple[str, str, Callable[[], bool]]:
        name, backend = self._take()
        self._say("member-leave", name, backend)
        self._later(LEAVE_S, backend.stop)
        return name, "member-leave", lambda: not self._gets_requests(name)

    def _crash(self) -> tuple[str, str, Callable[[], bool]]:
        name, backend = self._take()
        backend.crash()
        time.sleep(FAILED_S)
        self._say("member-failed", name, backend)
        return name, "member-failed", lambda: not self._gets_requests(name)

    def _weight(self) -> tuple[str, str, Callable[[], bool]]:
        name, backend = self._first()
        tags = self._membership.nodes[name].tags
        weight = "2" if tags.get("weight") != "2" else "1"
        self._say("member-update", name, backend, weight=weight)
        return name, "member-update", lambda: self._weight_of(name) == int(weight)

    def _port(self) -> tuple[str, str, Callable[[], bool]]:
        """Move a node to another port of another server; the old one stops a little later."""
        name, before = self._first()
        self._running[name] = self._spares.pop()
        self._say("member-update", name, self._running[name])
        self._later(LEAVE_S + EVENT_S, before.stop)
        self._ended.append(before)
        return name, "member-update", lambda: self._has(name)

    def _drain(self) -> tuple[str, str, Callable[[], bool]]:
        name, backend = self._first()
        self._drained.append(name)
        self._say("member-update", name, backend, drain="true")
        return name, "member-update", lambda: self._weight_of(name) == 0

    def _undrain(self) -> tuple[str, str, Callable[[], bool]]:
        name = self._drained.pop(0)
        self._say("member-update", name, self._running[name], drain="false")
        return name, "member-update", lambda: self._weight_of(name) > 0

    def _first(self) -> tuple[str, Backend]:
        """Return a node that serves; each time another one."""
        name = next(name for name in self._running if name not in self._drained)
        self._running[name] = self._running.pop(name)
        return name, self._running[name]

    def _take(self) -> tuple[str, Backend]:
        name, backend = self._first()
        del self._running[name]
        self._gone.append(name)
        self._ended.append(backend)
        return name, backend

    def _say(self, kind: str, name: str, backend: Backend, **tags: str) -> None:
        all_tags = {"role": "web", "port": str(backend.port), **tags}
        self._membership.put([Node(name, backend.address, all_tags)], kind)

    def _has(self, name: str) -> bool:
        backend = self._running[name]
        return self._resident.up().get(name) == f"{backend.address}:{backend.port}"

    def _gets_requests(self, name: str) -> bool:
        """Tell whether HAProxy gives a server new requests: one that drains is still up, with the weight 0."""
        return self._weight_of(name) > 0 and name in self._resident.up()

    def _weight_of(self, name: str) -> int:
        return self._resident.weights().get(name, -1)

    def _later(self, pause_s: float, act: Callable[[], object]) -> None:
        thread = threading.Timer(pause_s, act)
        thread.start()
        self._threads.append(thread)


def run_phases(fleet: Fleet, load: Load, options: argparse.Namespace) -> list[Phase]:
    """Change and rest in turn until there were enough changes and new connections; return the phases."""
    kinds = itertools.cycle(KINDS)
    phases: list[Phase] = []
    end_s = time.monotonic() + LONGEST_S

    def is_enough() -> bool:
        return len(fleet.done) >= options.changes and sum(load.answered_counts()[:-1]) >= options.requests

    while not is_enough() and time.monotonic() < end_s:
        fleet.prepare()
        time.sleep(1.5)
        started_s = time.monotonic()
        time.sleep(options.phase_s)
        phases.append(Phase("quiet", started_s, time.monotonic()))
        started_s = time.monotonic()
        spares = SPARE_COUNT
        while time.monotonic() < started_s + options.phase_s:
            kind = next(kinds)
            spares -= kind in ("join", "rejoin", "port")
            if spares < 0:
                break
            if fleet.can(kind):
                fleet.change(kind)
                time.sleep(PAUSE_S)
        phases.append(Phase("changes", started_s, time.monotonic()))
    time.sleep(2.0)
    return phases


@contextlib.contextmanager
def running_fleet(directory: Path, by_reload: bool) -> Iterator[tuple[Fleet, Resident]]:
    """Run a balancer with its first nodes for the length of a block."""
    options = {"SERF_HAPROXY_DRAIN_TIMEOUT_S": "5"}
    if by_reload:
        options["SERF_HAPROXY_BALANCE"] = "static-rr"
    with running_proxy(directory, **options) as proxy:
        membership = Membership(proxy.environment)
        with serving(membership, proxy.settings.rpc_addr), running_resident(proxy) as resident:
            fleet = Fleet(directory, resident, membership)
            try:
                fleet.prepare()
                for _ in range(START_COUNT):
                    fleet.change("join")
                # No handler runs when the load's processes are forked: they would keep its standard input open.
                fleet.prepare()
                fleet.done.clear()
                yield fleet, resident
            finally:
                fleet.end()


def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    report = Report("lost-by-reload" if options.reload else "lost", options)
    bodies = frozenset(body_of(name).encode() for name in NAMES)
    with (
        tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory,
        running_fleet(Path(directory), options.reload) as (fleet, resident),
    ):
        host, _, port = resident.proxy.settings.frontend_bind.rpartition(":")
        target = host, int(port)
        reloads = resident.proxy.reload_count()
        new, kept = options.rate / 2, options.rate / 5
        workers = [Worker(target, rate, clients, bodies) for rate, clients in ((new, 0), (new, 0), (kept, 100))]
        with run_workers(workers) as load:
            phases = run_phases(fleet, load, options)
        reload_count = resident.proxy.reload_count() - reloads
        counters = resident.frontend_counters()
    tell_changes(report, fleet.done)
    tell_requests(report, load, fleet.done, options)
    tell_latency(report, load, phases)
    print(f"{len(fleet.done)} changes, {reload_count} reloads; HAProxy's counters: {counters}")
    good = sum(len(seen.took_s) for seen in load.seen)
    if not reload_count:  # a reload starts with new counters
        found = f"{counters['hrsp_2xx']:,} and {good:,}"
        report.add_goal("HAProxy counts as many good answers as the clients", found, counters["hrsp_2xx"] == good)
    report.add_data(change_count=len(fleet.done), reload_count=reload_count, counters=counters)
    report.write()


def tell_changes(report: Report, done: list[Change]) -> None:
    """Print how long HAProxy took to have a change, by its kind."""
    rows = []
    for kind in sorted({change.kind for change in done}):
        row: list[object] = [kind, sum(change.kind == kind for change in done)]
        for is_hinted in (True, False):
            took_s = [change.took_s for change in done if change.kind == kind and change.is_hinted == is_hinted]
            row += [f"{1000 * median(took_s):.0f}", f"{1000 * max(took_s):.0f}"] if took_s else ["-", "-"]
        rows.append(row)
    report.add_table(
        "changes", ("change", "count", "by hint, p50, ms", "max, ms", "by event, p50, ms", "max, ms"), rows
    )


def tell_requests(report: Report, load: Load, done: list[Change], options: argparse.Namespace) -> None:
    """Print how many requests were answered and how many were not, and around which change."""
    rows = []
    answered: dict[str, int] = {}
    for name, seen in (("new connections", load.seen[:-1]), ("keep-alive", load.seen[-1:])):
        answered[name], failed = sum(len(each.took_s) for each in seen), sum(len(each.failures) for each in seen)
        rows.append((name, f"{answered[name]:,}", failed))
    report.add_table("requests", ("load", "answered", "failed"), rows)
    report.add_goal(
        f"{options.changes} changes and {options.requests:,} requests on new connections",
        f"{len(done)} and {answered['new connections']:,}",
        len(done) >= options.changes and answered["new connections"] >= options.requests,
    )
    failures = sorted(failure for seen in load.seen for failure in seen.failures)
    for failed_s, reason in failures[:20]:
        change = max((each for each in done if each.started_s <= failed_s), default=None)
        print(f"failed: {reason}; {failed_s - change.started_s if change else 0:.3f} s after {change and change.kind}")
    report.add_goal("no request fails", f"{len(failures):,}", not failures)
    report.add_data(failures=[reason for _, reason in failures[:100]])


def tell_latency(report: Report, load: Load, phases: list[Phase]) -> None:
    """Print how long answers took in quiet phases and in those with changes."""
    sorted_s = sort_by_phase(load, phases)
    merged_s = {kind: sorted(itertools.chain.from_iterable(lists_s)) for kind, lists_s in sorted_s.items()}
    rows = [
        (
            kind,
            len(sorted_s[kind]),
            f"{len(all_s):,}",
            *(f"{1000 * percentile(all_s, percent):.2f}" for percent in (50, 95, 99, 99.9, 100)),
        )
        for kind, all_s in merged_s.items()
    ]
    shares = ("p50, ms", "p95, ms", "p99, ms", "p99.9, ms", "max, ms")
    report.add_table("latency", ("phases", "count", "requests", *shares), rows)
    ratio = percentile(merged_s["changes"], 99) / percentile(merged_s["quiet"], 99)
    pairs = [percentile(two, 99) / percentile(one, 99) for one, two in zip(*sorted_s.values(), strict=True)]
    found = f"{ratio:.2f} over all, {median(pairs):.2f} in the median of {len(pairs)} pairs of neighbouring phases"
    report.add_goal("p99 with changes at most 1.2 times the quiet one", found, max(ratio, median(pairs)) <= 1.2)
    report.add_data(
        phases=[(phase.kind, phase.from_s - phases[0].from_s, phase.to_s - phases[0].from_s) for phase in phases],
        latency_s={kind: [(p, percentile(all_s, p)) for p in PERCENTS] for kind, all_s in merged_s.items()},
    )


def sort_by_phase(load: Load, phases: list[Phase]) -> dict[str, list[list[float]]]:
    """Return the times of the answers: of each kind of phase a list for each phase."""
    sorted_s: dict[str, list[list[float]]] = {"quiet": [], "changes": []}
    for phase in phases:
        took_s: list[float] = []
        for seen in load.seen:
            pairs = zip(seen.starts_s, seen.took_s, strict=True)
            took_s += [each_s for start_s, each_s in pairs if phase.from_s <= start_s < phase.to_s]
        sorted_s[phase.kind].append(took_s)
    return sorted_s


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--changes", type=int, default=200, help="at least so many")
    parser.add_argument("--requests", type=int, default=1_000_000, help="at least so many on new connections")
    parser.add_argument("--rate", type=float, default=2500)
    parser.add_argument("--phase-s", type=float, default=12)
    parser.add_argument("--reload", action="store_true")
    main(parser.parse_args())
