"""Both commands of README.md on a minimal system of each Debian that it names: on demand, `make systems`."""

from pathlib import Path

import pytest

from releases.root import Root

RELEASES = ("bookworm", "trixie")
# What once failed with Debian 13 alone: a disk of its own, a program for s6, and processes of the daemon.
DELICATE = ("test_boot.py", "test_daemon.py", "test_daemon_faults.py", "test_lab.py", "test_reloads.py")


@pytest.fixture(scope="module", params=RELEASES)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Return a new root directory with a clone of the project."""
    directory: Path = tmp_path_factory.mktemp("releases")
    directory.chmod(0o755)
    return Root(request.param, directory)


def test_the_demo_succeeds(root: Root) -> None:
    """`make demo` installs all that is missing, and each of its steps succeeds."""
    assert "All steps succeeded." in root.run("cd serf-haproxy && make demo ONCE=1", 900)


def test_the_quick_tests_pass(root: Root) -> None:
    """The linters and the unit tests pass."""
    assert " passed" in root.run("cd serf-haproxy && make check", 900)


def test_delicate_tests_pass(root: Root) -> None:
    """So do the tests that use most of a system: disks, s6, processes of the daemon, a lab."""
    names = " ".join(f"tests/integration/{name}" for name in DELICATE)
    assert " passed" in root.run(f"cd serf-haproxy && make install test-packages && .venv/bin/pytest {names}", 1800)
