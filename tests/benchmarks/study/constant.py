"""Ten minutes of constant load with one slow server: whether measured weights swing.

The result is `constant/result.json` in the directory of the results, since it is no cell that others are compared with.
"""

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study import results
from study.algorithms import list_algorithms
from study.cases import SICK, list_cases
from study.cell import Cell, Lengths, run_cell

PICTURE = "constant.svg"
_LOAD, _COUNT, _ALGORITHM = 5, 5, "random(2) + weights"
_REST_S = 20.0
_SETTLE_S = 10.0
_STEP_S = 0.5  # the weights are read so often
_WHOLE, _HALF = 100.0, 50.0


def run(results_dir: Path, minutes: float) -> Mapping[str, Any]:
    """Run it, and write the result down."""
    lengths = Lengths(60 * minutes, _REST_S, _REST_S)
    cell = Cell(list_cases()["slow"], _LOAD, _COUNT, list_algorithms()[_ALGORITHM], 1, lengths)
    found = run_cell(cell, math.inf)
    assert found
    result = results.describe(cell, found, results.read_code())
    path = _locate(results_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result) + "\n")
    return result


def read(results_dir: Path) -> Mapping[str, Any] | None:
    """Return the result; None before the first run."""
    path = _locate(results_dir)
    return json.loads(path.read_text()) if path.exists() else None


def sample(result: Mapping[str, Any], from_s: float, to_s: float) -> list[dict[str, float]]:
    """Return the weights of all servers twice a second, in a part of the run."""
    samples: list[dict[str, float]] = []
    changes = list(result["weights"])
    now: dict[str, float] = {}
    for step in range(math.ceil(from_s / _STEP_S), math.ceil(to_s / _STEP_S)):
        while changes and changes[0][0] <= step * _STEP_S:
            now = changes.pop(0)[1]
        if now:
            samples.append(now)
    return samples


def show(results_dir: Path) -> str:
    """Return what it came to, for the page."""
    result = read(results_dir)
    if result is None:
        return "Not run yet."
    began_s, ended_s = result["marks_s"]
    samples = sample(result, began_s + _SETTLE_S, ended_s)
    sick = [one[SICK] for one in samples]
    others = [weight for one in samples for name, weight in one.items() if name != SICK]
    low = sum(weight < _HALF for weight in others) / len(others)
    shares = [share for second, share in result["share_of_sick"] if _SETTLE_S <= second < ended_s - began_s]
    back = next((at_s for at_s, weights in result["weights"] if at_s > ended_s and weights[SICK] == _WHOLE), None)
    came = "not within the run" if back is None else f"{back - ended_s:.0f} s after it was repaired"
    lines = [
        f"- {ended_s - began_s:.0f} s at {_LOAD} % with {result['algorithm']}, {result['requests_in_all']:,} requests,"
        f" of which {result['failed_in_all']} failed. {result['machine']}. {result['commit']}.",
        f"- {SICK}, ten times slower, had a weight of {min(sick):g} to {max(sick):g}, {statistics.mean(sick):.1f} on"
        f" average, and {100 * statistics.mean(shares):.2f} % of the requests. Its whole weight was back {came}.",
        f"- The four others had {statistics.mean(others):.1f} of 100 on average, {min(others):g} at least, and less"
        f" than {_HALF:g} in {100 * low:.2f} % of the time.",
    ]
    void = " **So the run is void by the rule above**: the machine was in use." if result["is_void"] else ""
    lines.append(f"- The generator's lag was {result['lag_p99_ms']:.1f} ms at p99.{void}")
    return "\n".join(lines) + f"\n\n![Weights over ten minutes]({results_dir.name}/{PICTURE})"


def _locate(results_dir: Path) -> Path:
    return results_dir / "constant" / "result.json"
