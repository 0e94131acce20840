"""The units that `serf-haproxy install` writes, judged by systemd's own tools, and what the command keeps."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from integration import debian
from integration.test_daemon import COMMAND

UNITS = ("serf-haproxy", "serf-haproxy-boot", "serf-haproxy-agent", "serf-haproxy-autoscale", "serf-haproxy-node")
DROP_INS = ("haproxy", "app")


def install(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `serf-haproxy install` for a root."""
    return subprocess.run(
        [*COMMAND, "install", *words, "--root", str(root)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with Debian's HAProxy and all that the command writes."""
    directory = tmp_path_factory.mktemp("root")
    debian.unpack(directory, "haproxy")
    assert install(directory, "balancer", "--join", "10.1.0.5").returncode == 0
    assert install(directory, "node", "--application", "app.service", "--tag", "port=8080").returncode == 0
    (directory / "etc/systemd/system/app.service").write_text("[Service]\nExecStart=/bin/true\n")
    return directory


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command systemd-analyze, of Debian's package where it is not installed."""
    if shutil.which("systemd-analyze"):
        return ["systemd-analyze"]
    directory = tmp_path_factory.mktemp("systemd")
    debian.unpack_all(directory, "systemd")
    libraries = (
        f"LD_LIBRARY_PATH={directory}/usr/lib/x86_64-linux-gnu:{directory}/lib/systemd:{directory}/usr/lib/systemd"
    )
    return ["env", libraries, str(directory / "usr/bin/systemd-analyze")]


@pytest.mark.parametrize("unit", UNITS)
def test_exposure_is_below_three(analyze: list[str], root: Path, unit: str) -> None:
    """`systemd-analyze security` rates each unit below 3."""
    words = ["security", "--offline=true", "--threshold=29", f"{root}/etc/systemd/system/{unit}.service"]
    judged = subprocess.run([*analyze, *words], capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-300:] + judged.stderr


def test_units_are_valid(analyze: list[str], root: Path) -> None:
    """`systemd-analyze verify` has nothing to say about the units and drop-ins."""
    path = f"{root}/etc/systemd/system:{root}/lib/systemd/system:/lib/systemd/system"
    units = [f"{unit}.service" for unit in (*UNITS, *DROP_INS)]
    argv = [*analyze, "verify", "--man=no", *units]
    checked = subprocess.run(
        argv, env=os.environ | {"SYSTEMD_UNIT_PATH": path}, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_what_haproxy_has_becomes_settings(root: Path) -> None:
    """User, group, chroot and sockets of Debian's HAProxy are in the settings, which `check` accepts."""
    path = root / "etc/serf-haproxy/settings.toml"
    text = path.read_text()
    for line in (
        'haproxy_user = "haproxy"',
        'haproxy_group = "haproxy"',
        'haproxy_chroot = "/var/lib/haproxy"',
        'master_socket = "/run/haproxy-master.sock"',
        'runtime_socket = "/run/haproxy/admin.sock"',
    ):
        assert line in text
    drop_in = (root / "etc/systemd/system/haproxy.service.d/serf-haproxy.conf").read_text()
    assert "EXTRAOPTS=-S /run/haproxy-master.sock,mode,660,level,operator,group,haproxy" in drop_in
    environment = os.environ | {"SERF_HAPROXY_SETTINGS_FILE": str(path)}
    shown = subprocess.run([*COMMAND, "settings"], env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr


def test_an_operators_own_options_of_haproxy_take_precedence(tmp_path: Path) -> None:
    """A master's socket in /etc/default/haproxy is the one that the daemon asks; a comment there is none."""
    default = tmp_path / "etc/default/haproxy"
    default.parent.mkdir(parents=True)
    default.write_text('#EXTRAOPTS="-S /run/no.sock"\nEXTRAOPTS="-de -S /run/own.sock,mode,660"\n')
    assert install(tmp_path, "balancer").returncode == 0
    assert 'master_socket = "/run/own.sock"' in (tmp_path / "etc/serf-haproxy/settings.toml").read_text()


def test_a_second_run_keeps_what_an_operator_may_have_changed(tmp_path: Path) -> None:
    """Settings, keys and Serf's configuration stay, also where one of them was removed; secrets stay private."""
    assert install(tmp_path, "balancer").returncode == 0
    assert install(tmp_path, "node").returncode == 0
    directory = tmp_path / "etc/serf-haproxy"
    key = (directory / "rpc-auth").read_text()
    (directory / "settings.toml").write_text("# mine\n")
    (directory / "serf.json").unlink()
    assert install(tmp_path, "balancer").returncode == 0
    assert (directory / "settings.toml").read_text() == "# mine\n"
    assert json.loads((directory / "serf.json").read_text())["rpc_auth"] == key.strip()
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert modes == {"rpc-auth": 0o640, "serf.json": 0o600, "node.json": 0o600, "settings.toml": 0o644}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["node", "--tag", "port"], "--tag port: must be NAME=VALUE"),
        (["node", "--application", "../x.service"], "--application ../x.service: must be the name of a service's unit"),
        (["node", "--application", "nginx"], "--application nginx: must be the name of a service's unit"),
    ],
)
def test_wrong_input_is_told_in_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    """A wrong option ends with exit code 100 and one line, and nothing is written."""
    done = install(tmp_path, *words)
    assert done.returncode == 100
    assert done.stderr.startswith(f"serf-haproxy: {said}")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    """The line names the file and the remedy."""
    (tmp_path / "etc").write_text("")
    done = install(tmp_path, "node")
    assert done.returncode == 111
    line = f"cannot write {tmp_path}/etc/serf-haproxy/node.json: Not a directory; run the command as root"
    assert done.stderr == f"serf-haproxy: {line}\n"
