"""The cheap check, run as keepalived runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.cli import answering_cli
from serf_haproxy.haproxy import readiness
from serf_haproxy.settings import Settings

pytestmark = pytest.mark.usefixtures("time_limit")

HANDLERS_DIR = Path(__file__).parents[2] / "handlers"
CHECK = HANDLERS_DIR / "ready_for_traffic"
HEAVY = {"argparse", "dataclasses", "enum", "json", "logging", "pathlib", "re", "socket", "subprocess", "typing"}
UP = "# pxname,svname,act,bck,\nnodes,BACKEND,1,0,\n"


def run(home: Path, *words: str) -> tuple[int, str]:
    """Run the check for a balancer without a daemon; return its exit code and what it prints."""
    environ = {
        "SERF_HAPROXY_WAKE_FIFO": str(home / "wake"),
        "SERF_HAPROXY_RUNTIME_SOCKET": str(home / "admin.sock"),
        "SERF_HAPROXY_MASTER_SOCKET": str(home / "master.sock"),
    }
    done = subprocess.run([CHECK, *words], env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_executable_is_the_source() -> None:
    """The executable contains the current source; if not, run `make install`."""
    assert CHECK.read_bytes().endswith(b"\n" + (HANDLERS_DIR / "ready_for_traffic.py").read_bytes())


def test_paths_are_those_of_the_settings() -> None:
    """The check, which reads no settings, has the same default paths as the settings."""
    source = (HANDLERS_DIR / "ready_for_traffic.py").read_text()
    assert f'os.environ.get("SERF_HAPROXY_WAKE_FIFO") or "{Settings().wake_fifo}"' in source
    assert (
        Settings().runtime_socket,
        Settings().master_socket,
    ) == (readiness.RUNTIME_SOCKET, readiness.MASTER_SOCKET)
    assert os.path.basename(Settings().answers_dir) == "answers"


def test_it_is_cheap() -> None:
    """It loads none of the modules that take long."""
    argv = [sys.executable, "-I", "-X", "importtime", HANDLERS_DIR / "ready_for_traffic.py", "--help"]
    told = subprocess.run(argv, capture_output=True, text=True, check=False).stderr
    imported = {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}
    assert "serf_haproxy.haproxy.readiness" in imported
    assert not imported & HEAVY


def test_stale_is_an_exit_code_of_its_own(tmp_path: Path, short_dir: Path) -> None:
    """A balancer that serves by old news exits with 1, or with 0 where that is allowed."""
    with answering_cli(short_dir / "admin.sock", UP):
        assert run(short_dir) == (1, "stale: the daemon has not reported yet\n")
        assert run(short_dir, "--allow-stale", "--service", "nodes")[0] == 0
        assert run(short_dir, "--service", "shop") == (111, "not ready: no server is up: shop\n")
    assert run(tmp_path, "--allow-stale")[0] == 111


@pytest.mark.parametrize("words", [["--service"], ["--stale"], ["traffic"]])
def test_wrong_usage_is_told(tmp_path: Path, words: list[str]) -> None:
    """Wrong usage exits with 100 and shows the right one."""
    code, said = run(tmp_path, *words)
    assert (code, said[:6]) == (100, "usage:")
