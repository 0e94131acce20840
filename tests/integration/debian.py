"""Programs of Debian's that tests use without installing them, since an installed one would run as a service."""

import subprocess
from pathlib import Path

import workers


def unpack(directory: Path, *packages: str) -> None:
    """Download packages and unpack them into a directory.

    Raises:
        AssertionError: They cannot be had.
    """
    download(directory, *packages)
    for package in sorted(directory.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, directory], check=True)
        package.unlink()


def download(directory: Path, *packages: str) -> None:
    """Download packages into a directory.

    Raises:
        AssertionError: They cannot be had.
    """
    words = ["apt-get", "-qq", "download", *packages]
    with workers.locked("packages"):
        got = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
        if got.returncode:  # the list of packages may be missing, or old
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
            got = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    assert got.returncode == 0, f"cannot download Debian's {' '.join(packages)}: {got.stderr}"


def unpack_all(directory: Path, package: str) -> None:
    """Download a package and what it needs that is not installed here, and unpack all into a directory.

    Raises:
        AssertionError: They cannot be had.
    """
    words = ["apt-get", "install", "--simulate", "--no-install-recommends", package]
    with workers.locked("packages"):
        planned = subprocess.run(words, capture_output=True, text=True, check=False)
        if planned.returncode:
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
            planned = subprocess.run(words, capture_output=True, text=True, check=False)
    missing = {line.split()[1] for line in planned.stdout.splitlines() if line.startswith("Inst ")}
    unpack(directory, *sorted(missing | {package}))
