"""Run the study, or write its page.

Usage: .venv/bin/python tests/benchmarks/study run [--case NAME ...] [--load L] [--count N] [--algorithm NAME ...]
           [--seeds 5] [--requests 20000] [--quick] [--keep] [--wait-s 60] [--tries 3] [--lag-ms 5]
           [--until HH:MM] [--results docs/study]
       .venv/bin/python tests/benchmarks/study constant [--minutes 10] [--results docs/study]
       .venv/bin/python tests/benchmarks/study page [--results docs/study] [--docs docs/study.md]

`run` runs all cells, or those that the options choose, each after the other: for each case, load and number of servers
all algorithms in turn for the first seed, then for the second. A cell whose result is there for this code is skipped,
so a run that was interrupted goes on. A cell in which the generator was late is void: it is repeated up to --tries
times once the machine is calm, then left out. Where the machine never is calm, --lag-ms keeps void cells as well, and
the page marks them. `constant` runs ten minutes of constant load with one slow server, and keeps the result in any
case.
"""

import argparse
import datetime
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from measure import REPO  # noqa: E402

from study import calm, constant, results  # noqa: E402
from study.algorithms import list_algorithms  # noqa: E402
from study.cases import Case, list_cases  # noqa: E402
from study.cell import CAPACITY, LAG_S, Cell, Lengths, run_cell  # noqa: E402
from study.page import write_page  # noqa: E402

RESULTS_DIR = REPO / "docs" / "study"
_LEAST_S = 10.0  # of what counts in a cell
_SETTLE_S = 2.0
_QUICK_LOADS = (50,)
_QUICK_ALGORITHMS = ["roundrobin", "leastconn", "random(2)", "leastconn + weights", "random(2) + weights"]


def list_cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield the chosen cells in the order in which they run."""
    algorithms = list_algorithms()
    for case in list_cases().values():
        for load, count in case.loads:
            if options.quick and load not in _QUICK_LOADS:
                continue
            if _is_chosen(options.case, case.name) and options.load in (0, load) and options.count in (0, count):
                for seed in range(1, options.seeds + 1):
                    for algorithm in algorithms.values():
                        plain = algorithm.name.partition(" ")[0]
                        if _is_chosen(options.algorithm, algorithm.name) and _is_chosen(case.algorithms, plain):
                            yield Cell(
                                case, load, count, algorithm, seed, _choose_lengths(case, load, options.requests)
                            )


def _is_chosen(wanted: list[str] | tuple[str, ...], name: str) -> bool:
    return not wanted or name in wanted


def _choose_lengths(case: Case, load: int, request_count: int) -> Lengths:
    """Return lengths with which about so many requests count."""
    wanted_s = request_count / (load / 100 * CAPACITY)
    return Lengths(_SETTLE_S * case.is_steady + (max(_LEAST_S, wanted_s) if request_count else 6.0))


def run(options: argparse.Namespace) -> int:
    """Run cells; return 0, or 1 when some are void."""
    calm.ask_short_turns()
    results_dir = Path(options.results)
    code = results.read_code()
    until = datetime.datetime.combine(datetime.datetime.now().date(), datetime.time.fromisoformat(options.until))
    void_count = done_count = 0
    for cell in list_cells(options):
        if results.is_done(results.read_results(results_dir), cell, None if options.keep else code, options.lag_ms):
            continue
        result = None
        for attempt in range(1, options.tries + 1):
            if datetime.datetime.now() > until:
                print(f"it is {options.until}: {done_count} cells are done, the others are left", flush=True)
                return 1
            may_begin = calm.wait_calm(options.wait_s) or options.lag_ms > 1000 * LAG_S
            if may_begin and (result := run_cell(cell, options.lag_ms / 1000)):
                result["tries"] = attempt
                results.write_result(results_dir, cell, results.describe(cell, result, code))
                break
        void_count += result is None
        done_count += result is not None
        now = datetime.datetime.now().time().isoformat("seconds")
        said = (
            "void"
            if result is None
            else {key: result[key] for key in ("p50_ms", "p99_ms", "failed", "lag_p99_ms", "tries")}
        )
        print(f"{now} {cell.key}: {said}", flush=True)
    print(f"{done_count} cells are done, {void_count} are void")
    return int(void_count > 0)


def run_constant(options: argparse.Namespace) -> int:
    """Run the constant load; return 0, or 1 when it is void."""
    calm.ask_short_turns()
    found = constant.run(Path(options.results), options.minutes)
    print(f"the generator's lag was {found['lag_p99_ms']} ms at p99")
    return int(found["is_void"])


def page(options: argparse.Namespace) -> int:
    """Write the page; return 0."""
    from study.plots import draw, draw_constant  # matplotlib is needed for this alone

    if found := constant.read(Path(options.results)):
        draw_constant(found, Path(options.results) / constant.PICTURE)
    write_page(Path(options.results), Path(options.docs), draw)
    return 0


def main() -> int:
    """Read the command line and do it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # with cleanup
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    runs = verbs.add_parser("run")
    runs.set_defaults(verb=run)
    runs.add_argument("--case", action="append", default=[])
    runs.add_argument("--load", type=int, default=0)
    runs.add_argument("--count", type=int, default=0)
    runs.add_argument("--algorithm", action="append", default=[])
    runs.add_argument("--seeds", type=int, default=5)
    runs.add_argument("--requests", type=int, default=20_000, help="requests that count in a cell; 0: 6 s of them")
    runs.add_argument("--keep", action="store_true", help="skip cells with a result of other code, too")
    runs.add_argument("--wait-s", type=float, default=60.0, help="longest wait for a calm machine")
    explanation = "keep cells in which the generator was later than 5 ms, up to this; the page says that they are void"
    runs.add_argument("--lag-ms", type=float, default=1000 * LAG_S, help=explanation)
    runs.add_argument("--tries", type=int, default=3)
    runs.add_argument("--until", default="23:59:59.9", metavar="HH:MM", help="begin no cell after this time of the day")
    constants = verbs.add_parser("constant")
    constants.set_defaults(verb=run_constant)
    constants.add_argument("--minutes", type=float, default=10.0)
    pages = verbs.add_parser("page")
    pages.set_defaults(verb=page)
    pages.add_argument("--docs", default=str(REPO / "docs" / "study.md"), metavar="PATH")
    runs.add_argument("--quick", action="store_true", help="a load of 50 %%, one seed, some algorithms, 6 s")
    for verb in (runs, constants, pages):
        verb.add_argument("--results", default=str(RESULTS_DIR), metavar="DIR")
    options = parser.parse_args()
    if getattr(options, "quick", False):
        options.seeds, options.requests = 1, 0
        options.algorithm = options.algorithm or _QUICK_ALGORITHMS
    return int(options.verb(options))


if __name__ == "__main__":
    sys.exit(main())
