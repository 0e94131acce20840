"""The Debian packages, installed, upgraded under load, removed and purged on a machine with systemd as process 1."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.engine import need
from integration import debian
from integration.machine import Machine, running_machine
from integration.proxy import wait_for
from integration.test_systemd import ADDRESSES

ROOT = Path(__file__).parents[2]
NEEDED = ("jinja2", "markupsafe", "msgpack", "prometheus-client", "psutil", "decorator")
APPLICATION = "[Service]\nExecStart=/usr/bin/python3 -m http.server --bind 10.9.0.2 --directory /opt 8080\n"
REQUEST = 'curl -so /dev/null -w "%{http_code}\\n" http://127.0.0.1/'
LOAD = f"systemd-run --quiet --unit=load /bin/sh -c '{REQUEST.join(('while :; do ', ' >>/run/load; done'))}'"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with two versions of the packages, what they need of Debian's, and Debian's haproxy.cfg."""
    directory = tmp_path_factory.mktemp("source")
    debian.unpack(directory, "haproxy")
    debian.download(directory, *(f"python3-{name}" for name in NEEDED))
    for version in ("1.0", "1.1"):
        argv = [sys.executable, str(ROOT / "images" / "packages" / "build"), str(directory / version), version]
        subprocess.run(argv, check=True, capture_output=True)
    return directory


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Iterator[Machine]:
    """Yield a machine with Debian's HAProxy, and no package of ours."""
    with running_machine(tmp_path_factory.mktemp("machine"), source) as made:
        made.run(ADDRESSES)
        yield made


def test_lintian_finds_nothing_wrong(source: Path) -> None:
    """Debian's own checks have no error and no warning."""
    need("lintian")
    packages = sorted(str(path) for path in (source / "1.1").glob("*.deb"))
    assert len(packages) == 2
    argv = ["lintian", "--allow-root", "--no-cfg", "--fail-on=error,warning", *packages]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout + checked.stderr


def configure(machine: Machine, name: str, **changes: object) -> None:
    """Change the configuration of a Serf agent."""
    path = f"/etc/serf-haproxy/{name}.json"
    content = json.loads(machine.run(f"cat {path}")) | changes
    machine.run(f"echo '{json.dumps(content)}' > {path}")


def test_packages_live_and_go_as_debians_do(machine: Machine, source: Path) -> None:
    """Install, start, upgrade under load without a lost request, remove with HAProxy serving on, purge."""
    before = (source / "etc/haproxy/haproxy.cfg").read_text()
    machine.run("dpkg -i /mnt/python3-*.deb /mnt/1.0/*.deb")
    assert machine.run("cat /etc/haproxy/haproxy.cfg") == before
    configure(machine, "serf", bind="10.9.0.1:7946")
    own = {"bind": "10.9.0.2:7946", "rpc_addr": "127.0.0.1:7374", "node_name": "web1", "retry_join": ["10.9.0.1"]}
    configure(machine, "node", **own)
    machine.run("echo 'networks = \"10.9.0.0/24\"' >> /etc/serf-haproxy/settings.toml")
    machine.run(
        f"printf '{APPLICATION}' > /etc/systemd/system/app.service; systemctl daemon-reload; systemctl start app"
    )
    machine.run("systemctl restart haproxy; systemctl enable --now serf-haproxy serf-haproxy-agent serf-haproxy-node")
    machine.wait_active("haproxy", "serf-haproxy", "serf-haproxy-agent", "serf-haproxy-node")
    fetch = ("curl", "-sfo", "/dev/null", "http://127.0.0.1/")
    wait_for(lambda: machine.enter(*fetch).returncode == 0, machine.read_journal)

    machine.run(LOAD)
    wait_for(lambda: machine.enter("grep", "-c", "200", "/run/load").stdout.strip() not in ("", "0"), "requests")
    daemon = machine.show("serf-haproxy", "MainPID")
    machine.run("dpkg -i /mnt/1.1/*.deb")
    machine.wait_active("serf-haproxy", "serf-haproxy-agent", "serf-haproxy-node")
    assert machine.show("serf-haproxy", "MainPID") != daemon
    machine.run("systemctl stop load")
    assert set(machine.run("cat /run/load").split()) == {"200"}

    machine.run("dpkg --remove serf-haproxy")
    assert machine.enter(*fetch).returncode == 0
    assert machine.show("serf-haproxy", "ActiveState") == "inactive"
    machine.run("dpkg --purge serf-haproxy-node serf-haproxy")
    assert machine.run("cat /etc/haproxy/haproxy.cfg") == before
    left = machine.run(
        "find /etc /run /lib/systemd /usr/lib/python3 /var/lib -name '*serf-haproxy*' -not -path '*/dpkg/*'"
    )
    assert left == ""
