"""The size on disk of an installation: the wheel and its dependencies in a new environment without pip.

Usage: .venv/bin/python tests/benchmarks/size.py [--results DIR]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from measure import REPO, Report, make_parser

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def main(options: argparse.Namespace) -> None:
    """Install, measure and report."""
    report = Report("size", options)
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
        environment = Path(directory, "venv")
        venv.create(environment, symlinks=True)
        empty_kib = size_kib(environment)
        subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", directory, str(REPO)], check=True)
        wheel = next(Path(directory).glob("*.whl"))
        python = str(environment / "bin" / "python")
        install = [*PIP, "--python", python, "install", "--no-compile"]
        subprocess.run([*install, str(wheel)], check=True)
        bare_kib = size_kib(environment) - empty_kib
        packages = next(environment.glob("lib/python3*/site-packages"))
        rows = [("the wheel, as a file", f"{wheel.stat().st_size / 1024:,.0f}")]
        parts = {path.name: size_kib(path) for path in packages.iterdir() if path.is_dir()}
        rows += [(name, f"{kib:,.0f}") for name, kib in sorted(parts.items()) if not name.endswith(".dist-info")]
        share = environment / "share" / "serf-haproxy"
        rows.append(("share/serf-haproxy: handlers and the s6 tree", f"{size_kib(share):,.0f}"))
        rows.append(("all that is installed", f"{bare_kib:,.0f}"))
        subprocess.run([python, "-m", "compileall", "-q", str(packages)], check=True)
        rows.append(("the same, byte-compiled", f"{size_kib(environment) - empty_kib:,.0f}"))
    report.add_table("disk", ("what", "KiB on disk"), rows)
    report.write()


def size_kib(path: Path) -> float:
    """Return the disk usage of a directory tree as `du` counts it, KiB."""
    found = [os.lstat(path), *(os.lstat(each) for each in path.rglob("*"))]
    return sum(status.st_blocks for status in found) / 2


if __name__ == "__main__":
    main(make_parser(__doc__).parse_args())
