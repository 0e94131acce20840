"""The Makefile as an ordinary user meets it."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_programs_of_the_system_are_found() -> None:
    """What make runs finds haproxy, whose directory is not on an ordinary user's PATH."""
    argv = ["make", "--silent", "--eval=where: ; @command -v haproxy", "where"]
    environ = os.environ | {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    found = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (found.returncode, os.path.basename(found.stdout.strip())) == (0, "haproxy"), found.stderr
