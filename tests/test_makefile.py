"""The Makefile, run as an ordinary user."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_programs_of_the_system_are_found() -> None:
    """Recipes find haproxy, whose directory is not on an ordinary user's PATH."""
    argv = ["make", "--silent", "--eval=where: ; @command -v haproxy", "where"]
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin"}  # without the variables of a make that runs the tests
    found = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (found.returncode, os.path.basename(found.stdout.strip())) == (0, "haproxy"), found.stderr
