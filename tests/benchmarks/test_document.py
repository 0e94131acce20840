"""The page of the benchmarks and the results that are kept beside it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


PAGES = ("benchmarks.md", "how-to/run-two-balancers.md")


def write(results_dir: Path, directory: Path) -> list[str]:
    """Write results into copies of the pages; return their texts."""
    pages = [shutil.copy(DOCS / name, directory) for name in PAGES]
    argv = [sys.executable, ROOT / "tests/benchmarks/document.py", "--tables", "--results", results_dir]
    done = subprocess.run([*argv, "--docs", *pages], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [Path(page).read_text() for page in pages]


def test_the_pages_show_the_results_that_are_kept(tmp_path: Path) -> None:
    """The results beside the page fill it, whatever command made them; where they do not, run document.py."""
    assert write(DOCS / "benchmarks", tmp_path) == [(DOCS / name).read_text() for name in PAGES]


def test_a_table_says_of_which_command_and_commit_it_is(tmp_path: Path) -> None:
    """A result of a command that `make bench` has no more is shown as such, and so is the commit."""
    result = json.loads((DOCS / "benchmarks" / "storm.json").read_text())
    result |= {"command": "python tests/benchmarks/storm.py --formerly", "commit": "0123456789"}
    (tmp_path / "storm.json").write_text(json.dumps(result))
    text = write(tmp_path, tmp_path)[0]
    assert "storm.py --formerly`, another command than `make bench` has now; commit 0123456789\n" in text
