"""Former names in the s6 tree that still work for one release: AGENT_USER and the log directory `agent`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from serf_haproxy.lab import programs

S6_DIR = Path(programs.S6_DIR)
DAEMON, LOGGER = S6_DIR / "daemon", S6_DIR / ".common" / "log"
DEPRECATED_USER = 'level=WARNING msg="AGENT_USER is deprecated; use DAEMON_USER"'
PATH = os.environ["PATH"]


@pytest.fixture
def fake_bin(tmp_path: Path) -> Path:
    """Return a directory with an s6-setuidgid and a serf-haproxy that print their arguments."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("s6-setuidgid", "serf-haproxy"):
        (directory / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (directory / name).chmod(0o755)
    for name in ("s6-svok", "s6-svwait", "chown"):  # the users do not exist
        (directory / name).symlink_to("/bin/true")
    return directory


@pytest.mark.parametrize(
    ("environ", "user", "is_warned"),
    [
        ({}, "", False),
        ({"DAEMON_USER": "new"}, "new", False),
        ({"AGENT_USER": "old"}, "old", True),
        ({"DAEMON_USER": "new", "AGENT_USER": "old"}, "new", False),
        ({"IN_CONTAINER": "yes"}, "serf-haproxy", False),
        ({"IN_CONTAINER": "yes", "AGENT_USER": "old"}, "old", True),
    ],
    ids=["neither", "new", "former", "both", "image", "image with former"],
)
def test_the_former_variable_of_the_daemons_user_works(
    fake_bin: Path, tmp_path: Path, environ: dict[str, str], user: str, is_warned: bool
) -> None:
    """AGENT_USER counts when DAEMON_USER is unset, and the daemon's log then has one line that says so."""
    daemon = tmp_path / "s6" / "daemon"  # the script writes the key of Serf's RPC beside itself
    shutil.copytree(S6_DIR, daemon.parent)
    argv = [str(daemon / "run")]
    environ = environ | {"PATH": f"{fake_bin}:{PATH}"}
    printed = subprocess.run(argv, cwd=daemon, env=environ, capture_output=True, text=True, check=True).stdout
    expected = f"s6-setuidgid {user} serf-haproxy" if user else "serf-haproxy"
    assert printed.splitlines() == [DEPRECATED_USER] * is_warned + [f"{expected} run --notify-fd 3"]


@pytest.mark.parametrize("script", ["data/check", "run"])
def test_haproxys_scripts_use_the_former_variable(fake_bin: Path, tmp_path: Path, script: str) -> None:
    """The readiness check and the start of HAProxy run serf-haproxy as AGENT_USER when DAEMON_USER is unset."""
    (fake_bin / "s6-notifyoncheck").symlink_to("/bin/true")
    environ = {"PATH": f"{fake_bin}:{PATH}", "AGENT_USER": "old", "SERF_HAPROXY_CONFIG_PATH": str(tmp_path / "missing")}
    environ |= {f"SERF_HAPROXY_{name}_SOCKET": str(tmp_path / "run" / "its.sock") for name in ("MASTER", "RUNTIME")}
    service = S6_DIR / "haproxy"
    argv = [str(service / script)]
    printed = subprocess.run(argv, cwd=service, env=environ, capture_output=True, text=True, check=True).stdout
    assert all(line.startswith("s6-setuidgid old ") for line in printed.splitlines())
    assert any(line.startswith("s6-setuidgid old serf-haproxy ") for line in printed.splitlines())


def write_log(log_dir: Path, *lines: str) -> str:
    """Run the daemon's logger, as in a container, until it has written these lines; return its output."""
    environ = os.environ | {"LOG_DIR": str(log_dir), "IN_CONTAINER": "yes"}
    text = "".join(f"{line}\n" for line in lines)
    argv, service = [str(DAEMON / "log" / "run")], DAEMON / "log"
    return subprocess.run(
        argv, cwd=service, input=text, env=environ, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_the_former_path_of_the_daemons_log_works(tmp_path: Path) -> None:
    """LOG_DIR/agent is a link to LOG_DIR/daemon; the logger says so once, when it makes the link."""
    log_dir = tmp_path / "log"
    warning = f'daemon: level=WARNING msg="{log_dir}/agent is deprecated; use {log_dir}/daemon"'
    assert write_log(log_dir, "first").splitlines() == [warning, "daemon: first"]
    assert os.readlink(log_dir / "agent") == "daemon"
    assert write_log(log_dir, "second").splitlines() == ["daemon: second"]
    written = (log_dir / "agent" / "current").read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in written] == ["first", "second"]


def test_the_log_of_an_earlier_release_is_kept(tmp_path: Path) -> None:
    """A directory LOG_DIR/agent becomes LOG_DIR/daemon with all its files."""
    log_dir = tmp_path / "log"
    environ = os.environ | {"LOG_DIR": str(log_dir)}
    subprocess.run([LOGGER, "agent"], input=b"before\n", env=environ, check=True, timeout=60)
    before = (log_dir / "agent" / "current").read_text()
    write_log(log_dir, "after")
    after = (log_dir / "daemon" / "current").read_text()
    assert after.startswith(before)
    assert after.count("\n") == 2
    assert (log_dir / "agent").is_symlink()
    assert not list((log_dir / "daemon").glob("agent"))
