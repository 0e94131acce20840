"""The results of the study: one JSON file for each case, with one line for each cell."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import REPO, describe_machine

from study.cell import Cell

_CODE = ("agent", "tests/benchmarks/study")


def read_results(results_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the results of all cells by case and key."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(results_dir.glob("*.json"))}


def write_result(results_dir: Path, cell: Cell, result: Mapping[str, Any]) -> None:
    """Enter the result of a cell into the file of its case."""
    path = results_dir / f"{cell.case.name}.json"
    results_dir.mkdir(parents=True, exist_ok=True)
    cells = json.loads(path.read_text()) if path.exists() else {}
    cells[cell.key] = result
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(cells.items())]
    written = path.with_suffix(".tmp")
    written.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    written.replace(path)


def describe(cell: Cell, result: Mapping[str, Any], code: Mapping[str, str]) -> dict[str, Any]:
    """Return a result together with what it is a result of."""
    about = {
        "load": cell.load,
        "count": cell.count,
        "algorithm": cell.algorithm.name,
        "seed": cell.seed,
        "machine": describe_machine(),
        "lengths_s": [cell.lengths.fault_s, cell.lengths.rest_s, cell.lengths.measured_rest_s],
    }
    return about | dict(code) | dict(result)


def read_code() -> dict[str, str]:
    """Return the commit of the checkout, and the ids of the trees on which results depend.

    Results stay valid while these trees are the same: a commit of documents, such as the results, changes none.
    """
    commit, subject = _git("log", "-1", "--format=%h %s", "--", *_CODE).split(" ", 1)
    trees = "+".join(_git("rev-parse", "--short", f"HEAD:{path}") for path in _CODE)
    changed = "; with changes" if _git("status", "--porcelain", "--", *_CODE) else ""
    return {"commit": f"{commit} {subject}{changed}", "code": trees + changed}


def is_done(
    results: Mapping[str, Mapping[str, Any]], cell: Cell, code: Mapping[str, str] | None, lag_ms: float
) -> bool:
    """Return whether a cell has a result that need not be made again.

    Args:
        results: All results.
        cell: The cell.
        code: What `read_code` returns, if the result must be of this code; else None.
        lag_ms: The greatest lag of the generator that is accepted.
    """
    found = results.get(cell.case.name, {}).get(cell.key)
    if found is None or (code is not None and found["code"] != code["code"]):
        return False
    return bool(found["lengths_s"][0] >= cell.lengths.fault_s and found["lag_p99_ms"] <= lag_ms)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=REPO, capture_output=True, text=True, check=True).stdout.strip()
