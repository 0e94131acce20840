"""The Makefile, run as an ordinary user."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_programs_of_the_system_are_found() -> None:
    """Recipes find haproxy, whose directory is not on an ordinary user's PATH."""
    argv = ["make", "--silent", "--eval=where: ; @command -v haproxy", "where"]
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin"}  # without the variables of a make that runs the tests
    found = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (found.returncode, os.path.basename(found.stdout.strip())) == (0, "haproxy"), found.stderr


def test_every_phony_target_has_a_rule() -> None:
    """Each target that .PHONY declares has a recipe or prerequisites, and `make help` lists only such targets."""
    text = (ROOT / "Makefile").read_text()
    declared = set(re.findall(r"\S+", "".join(re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE))))
    environ = {"PATH": os.environ["PATH"]}
    argv = ["make", "--print-data-base", "--question", "--file=Makefile", "help"]
    database = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False).stdout
    ruled = set()
    for entry in database.split("\n\n"):
        lines = [line for line in entry.splitlines() if not line.startswith("#") or "recipe to execute" in line]
        target, colon, prerequisites = lines[0].partition(":") if lines else ("", "", "")
        if colon and (prerequisites.strip() or any("recipe to execute" in line for line in lines)):
            ruled.add(target)
    assert declared - ruled == set()
    helped = subprocess.run(["make", "help"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout
    described = {line.split()[0] for line in helped.splitlines()}
    assert described <= declared
    assert {"check", "unit", "test", "help"} <= described
