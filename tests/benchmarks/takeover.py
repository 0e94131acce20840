"""Two balancers and one address: requests that fail, and seconds without an answer, when one of them has a fault.

Usage: .venv/bin/python tests/benchmarks/takeover.py [--rate 200] [--faults WORD...] [--rounds 40]

Two balancers with real keepalived, two web applications and a client are in network namespaces of their own
(`tests/standby/site.py`), with the configuration of `images/examples/keepalived`. Requests come at a constant rate,
each on a new connection, and none is repeated. It needs root. The cost of the check is CPU time, beside that of a bare
Python.
"""

import argparse
import collections
import functools
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import REPO, Report, child_cpu_s, make_parser, median

import workers
from standby.faults import FAULTS, Fault, Result, measure, settle
from standby.site import Balancer, running_site

PYTHON = str(REPO / ".venv" / "bin" / "python")
GRACEFUL_S, CRASH_S = 1.0, 3.0


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("takeover", options)
    faults = [fault for fault in FAULTS if not options.faults or any(word in fault.name for word in options.faults)]
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
        os.environ[workers.RUN_DIR] = directory
        with running_site(Path(directory)) as site:
            settle(site)
            tell_cost(report, site.balancers[0], options.rounds)
            results = [(fault, measure(site, fault, options.rate)) for fault in faults]
    tell_faults(report, results)
    report.write()


def tell_faults(report: Report, results: list[tuple[Fault, Result]]) -> None:
    """Report what the clients saw of each fault."""
    rows = []
    for fault, (found, moved_s) in results:
        reasons = collections.Counter(reason for _, reason in found.faults)
        said = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common()) or "-"
        moved = "stays" if moved_s is None else f"after {moved_s:.1f} s"
        rows.append((fault.name, moved, found.count, len(found.faults), f"{found.gap_s:.2f}", said))
    header = (
        "what happens to the balancer with the address",
        "the address",
        "requests",
        "failed",
        "longest gap, s",
        "how",
    )
    report.add_table("faults", header, rows)
    ordered = [found for fault, (found, _) in results if fault.is_graceful]
    lost, gap_s = sum(len(found.faults) for found in ordered), max((found.gap_s for found in ordered), default=0.0)
    report.add_goal("nothing is lost where HAProxy goes on or ends gracefully", f"{lost}", lost == 0)
    report.add_goal(f"no answer for at most {GRACEFUL_S:g} s there", f"{gap_s:.2f} s", gap_s <= GRACEFUL_S)
    gap_s = max((found.gap_s for fault, (found, _) in results if not fault.is_graceful), default=0.0)
    report.add_goal(f"no answer for at most {CRASH_S:g} s after a crash", f"{gap_s:.2f} s", gap_s <= CRASH_S)
    wrong = [fault.name for fault, (_, moved_s) in results if fault.moves not in (None, moved_s is not None)]
    report.add_goal("the address moves only where that helps", ", ".join(wrong) or "so it was", not wrong)


def tell_cost(report: Report, balancer: Balancer, rounds: int) -> None:
    """Report what it costs to ask once."""
    programs = {
        "a bare python -I": (PYTHON, "-I", "-c", "pass"),
        "ready_for_traffic": (str(REPO / "handlers" / "ready_for_traffic"),),
        "serf-haproxy ready --for traffic": (str(Path(PYTHON).with_name("serf-haproxy")), "ready", "--for", "traffic"),
    }
    cost_s: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, words in programs.items():
            cost_s[name].append(child_cpu_s(functools.partial(balancer.ask_by, *words)))
    bare_s = median(cost_s["a bare python -I"])
    rows = [(name, f"{1000 * median(all_s):.1f}", f"{median(all_s) / bare_s:.2f}") for name, all_s in cost_s.items()]
    report.add_table("cost", ("program", "CPU, ms", "ratio"), rows)
    ratio = median(cost_s["ready_for_traffic"]) / bare_s
    report.add_goal("the check costs at most 1.5 times a bare Python", f"{ratio:.2f}", ratio <= 1.5)


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--rate", type=float, default=200, help="requests a second (default: 200)")
    parser.add_argument("--rounds", type=int, default=40, help="how often the cost is measured (default: 40)")
    parser.add_argument("--faults", nargs="*", default=[], metavar="WORD", help="only faults with such a word")
    main(parser.parse_args())
