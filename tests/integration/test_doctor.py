"""`doctor` looks at all that a balancer needs, with one remedy a line; and no command ends with a traceback."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from fakes.certificates import make_authority, write_pair
from integration.balancer import Balancer
from integration.proxy import free_port
from integration.test_status import COMMAND, run
from serf_haproxy.serf.wake import open_fifo
from serf_haproxy.settings import variable

GOOD, BAD = "\u221a ", "\u00d7 "

pytestmark = pytest.mark.usefixtures("time_limit")


def test_a_whole_balancer_has_nothing_wrong(balancer: Balancer) -> None:
    """Every line has a check mark, and the exit code is 0."""
    fd = open_fifo(balancer.settings.wake_fifo)
    try:
        shown = run(balancer, "doctor")
    finally:
        os.close(fd)
    assert shown.returncode == 0, shown.stdout
    lines = shown.stdout.splitlines()
    assert all(line.startswith(GOOD) for line in lines), shown.stdout
    for word in (
        "settings are valid",
        "can be written",
        "HAProxy version 2",
        "Serf answers",
        "answers",
        "the daemon runs",
    ):
        assert any(word in line for line in lines), word


def test_each_fault_has_a_remedy(balancer: Balancer) -> None:
    """Each line with a cross names a thing and, after a colon, what to do; the exit code is 1."""
    os.kill(balancer.serf, signal.SIGKILL)
    balancer.stop(signal.SIGKILL)
    Path(balancer.settings.wake_fifo).unlink(missing_ok=True)
    balancer.environment["SERF_HAPROXY_BALENCE"] = "first"
    balancer.environment["SERF_HAPROXY_HAPROXY_BIN"] = "false"
    shown = run(balancer, "doctor")
    assert shown.returncode == 1
    crosses = [line for line in shown.stdout.splitlines() if line.startswith(BAD)]
    for pattern in (
        "did you mean SERF_HAPROXY_BALANCE.*: remove or correct",
        "is not the FIFO.*: start the daemon",
        "false: .*: change SERF_HAPROXY_HAPROXY_BIN",
        "Serf's RPC at .*: start it",
        "no HAProxy listens on .*: start it",
    ):
        assert any(re.search(pattern, line) for line in crosses), (pattern, shown.stdout)
    assert all(": " in line for line in crosses)


def list_crosses(balancer: Balancer) -> list[str]:
    """Return the doctor's lines with a cross."""
    return [line for line in run(balancer, "doctor").stdout.splitlines() if line.startswith(BAD)]


def test_certificates_that_end_soon_are_told(balancer: Balancer, tmp_path: Path) -> None:
    """Those of the HTTPS listener and those of authorities, by the operator's file; one that ends late is no fault."""
    directory = tmp_path / "certificates"
    directory.mkdir()
    late, soon, authority = directory / "late.pem", directory / "soon.pem", tmp_path / "ca.pem"
    write_pair(late, "late.test", days=90)
    authority.write_text(make_authority(days=90))
    Path(balancer.settings.services_file).write_text(f'[nodes]\ntls = true\ntls_ca_file = "{authority}"\n')
    https = {"https_bind": f"127.0.0.1:{free_port()}", "certificates_dir": str(directory)}
    balancer.environment |= {variable(key): value for key, value in https.items()}
    balancer.settings = balancer.settings.replace(**https)
    balancer.run_pass()
    shown = run(balancer, "doctor").stdout
    assert re.search(f"^{GOOD}.* ends in 89d, and no other one sooner$", shown, re.M), shown
    write_pair(soon, "soon.test", days=3)
    authority.write_text(make_authority(days=5))
    balancer.run_pass()
    crosses = list_crosses(balancer)
    assert any(re.search(r"certificate soon.pem ends in 2d: renew it", line) for line in crosses), crosses
    assert any(re.search(f"an authority in {authority} ends in 4d: renew it", line) for line in crosses), crosses


def test_rights_that_are_too_wide_are_told(balancer: Balancer, tmp_path: Path) -> None:
    """A secret that others can read, and a file that others can change and the balancer obeys."""
    secret = tmp_path / "secret"
    secret.write_text("a secret of sixteen")
    secret.chmod(0o604)
    services = Path(balancer.settings.services_file)
    services.write_text("")
    services.chmod(0o666)
    balancer.environment |= {"SERF_HAPROXY_ORDERS_SECRET_FILE": str(secret)}
    crosses = list_crosses(balancer)
    assert f"{BAD}{secret} is a secret that every user can read: `chmod o= {secret}`" in crosses
    assert f"{BAD}{services} can be changed by every user: `chmod o-w {services}`" in crosses
    secret.chmod(0o640)
    services.chmod(0o664)
    assert "no other user can change settings and state, or read secrets" in run(balancer, "doctor").stdout


@pytest.mark.parametrize(
    ("says", "cross"),
    [
        ("HAProxy version 2.4.22 2023/02/14", "HAProxy version 2.4.22 2023/02/14: install HAProxy 2.6 or newer"),
        ("HAProxy version 3.9.1 2029/01/01", "is 3.9.1: restart HAProxy"),
        ("nginx version: nginx/1.22", "nginx version: nginx/1.22: change SERF_HAPROXY_HAPROXY_BIN"),
    ],
)
def test_versions_are_told(balancer: Balancer, tmp_path: Path, says: str, cross: str) -> None:
    """A HAProxy that is too old, is none, or is another one than that which runs."""
    program = tmp_path / "haproxy"
    program.write_text(f'#!/bin/sh\n[ "$1" = -v ] && echo "{says}"\n')
    program.chmod(0o755)
    balancer.environment["SERF_HAPROXY_HAPROXY_BIN"] = str(program)
    crosses = list_crosses(balancer)
    assert any(cross in line for line in crosses), crosses


def test_wrong_settings_are_all_told(balancer: Balancer) -> None:
    """Wrong settings end the examination, each with a line."""
    balancer.environment |= {"SERF_HAPROXY_BALANCE": "x", "SERF_HAPROXY_QUIET_S": "x"}
    shown = run(balancer, "doctor")
    assert (shown.returncode, shown.stdout.count(f"{BAD}setting SERF_HAPROXY_")) == (1, 2)


@pytest.mark.parametrize("words", [["status", "-o", "json"], ["doctor"], ["settings"], ["explain", "web1"], ["render"]])
def test_a_reader_that_goes_away_is_no_error(balancer: Balancer, words: list[str]) -> None:
    """When the output is a pipe that closes, a command ends without a word."""
    readable, writable = os.pipe()
    os.close(readable)
    environ = os.environ | balancer.environment
    try:
        argv = [*COMMAND, *words]
        shown = subprocess.run(argv, env=environ, stdout=writable, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writable)
    assert shown.stderr == ""
