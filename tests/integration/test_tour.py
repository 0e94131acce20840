"""The tour behind `make demo`."""

import subprocess
import sys
from pathlib import Path


def test_the_tour_really_happens(short_dir: Path) -> None:
    """Every step of `lab demo --once` comes about, no request fails, and nothing stays behind."""
    where = ["--dir", str(short_dir / "lab"), "--port-base", "20700"]
    tour = subprocess.run(
        [sys.executable, "-m", "serf_haproxy", "lab", "demo", "--once", *where],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert tour.returncode == 0, tour.stdout + tour.stderr
    assert "All of it happened" in tour.stdout
    assert not (short_dir / "lab").exists()
