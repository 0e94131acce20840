"""Run the study of scaling, and write its page.

Usage: .venv/bin/python tests/benchmarks/scaling [TRACE ...] [--scale 1] [--case NAME ...] [--no-plots]
           [--results docs/autoscale-study] [--docs docs/autoscale-study.md]

TRACE is a file of whole numbers, one a line: requests in a minute, in order. Results of other cases stay as they are,
and so do those of recorded rates where their files are not at hand.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from measure import REPO  # noqa: E402

from scaling.cases import list_cases  # noqa: E402
from scaling.measure_case import run_case  # noqa: E402
from scaling.page import write_page  # noqa: E402


def main() -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE")
    parser.add_argument("--scale", type=float, default=1.0, help="the part of the long loads that is run")
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--results", type=Path, default=REPO / "docs" / "autoscale-study", metavar="DIR")
    parser.add_argument("--docs", type=Path, default=REPO / "docs" / "autoscale-study.md", metavar="PATH")
    parser.add_argument("--no-plots", action="store_true")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    for place, case in enumerate(list_cases(options.traces, options.scale), -len(options.traces)):
        if options.case and case.name not in options.case:
            continue
        began = time.monotonic()
        _, optimum, runs = run_case(case)
        if not options.no_plots:
            from scaling.plots import draw  # matplotlib is needed for this alone

            draw(case, optimum, runs, options.results)
        result = {
            "title": case.title,
            "place": place,
            "is_recorded": case.is_recorded,
            "start_s": case.shape.start_s,
            "laws": {run.law: run.figures for run in runs},
        }
        (options.results / f"{case.name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"{case.name}: {time.monotonic() - began:.0f} s", flush=True)
        for run in runs:
            print(f"    {run.law}: {run.figures}", flush=True)
    write_page(options.results, options.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
