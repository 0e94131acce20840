"""Lost requests, and the latency of the others, while the membership changes under a constant load.

Usage: .venv/bin/python tests/benchmarks/lost.py [--changes 200] [--requests 1000000] [--rate 2500] [--reload]

Joins, leaves, crashes, rejoins at another address, changed weights and ports, and drains happen one after another.
Meanwhile requests are made on new connections, `--rate` a second, and by 100 keep-alive clients, a fifth of that. Each
answer is checked. It ends after `--changes` changes and `--requests` requests on new connections.

Quiet phases and phases with changes alternate, so that noise of the machine affects both. Every second change is
reported by a hint first and by the event a second later, the others by the event only. With `--reload` the algorithm is
one for which HAProxy takes no servers at run time, so that changes need a reload. The applications of a phase are
started before it, because in a real cluster they do not run on the balancer's machine.
"""

import argparse
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from applications import body_of
from balancer import Daemon, running_daemon
from client import Load, Worker, run_workers
from fleet import KINDS, NAMES, SPARE_COUNT, START_COUNT, Change, Fleet
from measure import Report, make_parser, median, percentile
from membership import Membership, serving

from integration.proxy import running_proxy

PAUSE_S = 0.5  # between two changes
LONGEST_S = 1800.0
PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 99.99, 100)


class Phase(NamedTuple):
    """A period with changes (kind "changes") or without any ("quiet")."""

    kind: str
    from_s: float
    to_s: float


def run_phases(fleet: Fleet, load: Load, options: argparse.Namespace) -> list[Phase]:
    """Alternate phases until there were enough changes and requests on new connections; return the phases."""
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
def running_fleet(directory: Path, by_reload: bool) -> Iterator[tuple[Fleet, Daemon]]:
    """Run a balancer with its first nodes for the length of the block."""
    options = {"SERF_HAPROXY_DRAIN_TIMEOUT_S": "5"}
    if by_reload:
        options["SERF_HAPROXY_BALANCE"] = "static-rr"
    with running_proxy(directory, **options) as proxy:
        membership = Membership(proxy.environment)
        with serving(membership, proxy.settings.rpc_addr), running_daemon(proxy) as daemon:
            fleet = Fleet(directory, daemon, membership)
            try:
                fleet.prepare()
                for _ in range(START_COUNT):
                    fleet.change("join")
                # No handler may run when the load's processes are forked: they would keep its standard input open.
                fleet.prepare()
                fleet.done.clear()
                yield fleet, daemon
            finally:
                fleet.end()


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("lost-by-reload" if options.reload else "lost", options)
    bodies = frozenset(body_of(name).encode() for name in NAMES)
    with (
        tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory,
        running_fleet(Path(directory), options.reload) as (fleet, daemon),
    ):
        host, _, port = daemon.proxy.settings.frontend_bind.rpartition(":")
        target = host, int(port)
        reloads = daemon.proxy.reload_count()
        new, kept = options.rate / 2, options.rate / 5
        workers = [Worker(target, rate, clients, bodies) for rate, clients in ((new, 0), (new, 0), (kept, 100))]
        with run_workers(workers) as load:
            phases = run_phases(fleet, load, options)
        reload_count = daemon.proxy.reload_count() - reloads
        counters = daemon.frontend_counters()
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
    """Report how long changes took until HAProxy had them, by kind."""
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
    """Report how many requests were answered and how many failed, and after which change."""
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
    """Report how long answers took in quiet phases and in those with changes."""
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
    """Return the latencies, seconds: for each kind of phase, one list for each phase."""
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
    parser.add_argument("--changes", type=int, default=200, help="least number of changes (default: 200)")
    parser.add_argument("--requests", type=int, default=1_000_000, help="least number on new connections")
    parser.add_argument("--rate", type=float, default=2500)
    parser.add_argument("--phase-s", type=float, default=12)
    parser.add_argument("--reload", action="store_true")
    main(parser.parse_args())
