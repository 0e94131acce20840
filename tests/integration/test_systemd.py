"""The page about hosts, done with systemd as process 1: Debian's HAProxy becomes a balancer, a unit a node."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import debian
from integration.machine import Machine, running_machine
from integration.proxy import wait_for

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "deploy-on-a-host.md"
APPLICATION = """[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 10.9.0.2 --directory /opt 8080
DynamicUser=yes
"""
# The balancer and the node share one machine, which has an address for each.
ADDRESSES = "ip address add 10.9.0.1/32 dev lo; ip address add 10.9.0.2/32 dev lo"


def read_blocks(title: str) -> list[str]:
    """Return the commands of a section of the page, one text for each of its blocks."""
    section = re.split(r"^#+ ", PAGE.read_text().split(f" {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the wheel and Debian's own haproxy.cfg."""
    directory = tmp_path_factory.mktemp("source")
    debian.unpack(directory, "haproxy")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Iterator[Machine]:
    """Yield a machine on which a balancer was installed as the page says."""
    with running_machine(tmp_path_factory.mktemp("machine"), source) as made:
        made.run(ADDRESSES)
        made.run(f"cd /mnt; {read_blocks('Install')[1]}", has_network=True)
        install, start = read_blocks("A balancer")[0].split("\n", 1)
        made.run(install)
        agent = json.loads(made.run("cat /etc/serf-haproxy/serf.json")) | {"bind": "10.9.0.1:7946"}
        made.run(f"echo '{json.dumps(agent)}' > /etc/serf-haproxy/serf.json")
        made.run("echo 'networks = \"10.9.0.0/24\"' >> /etc/serf-haproxy/settings.toml")
        made.run(start)
        made.wait_active("haproxy", "serf-haproxy", "serf-haproxy-agent")
        yield made


def test_debians_haproxy_becomes_a_balancer(machine: Machine, source: Path) -> None:
    """Its configuration is kept, its user, group, chroot and sockets stay, and all units are well."""
    before = (source / "etc/haproxy/haproxy.cfg").read_text()
    assert machine.run("cat /etc/haproxy/haproxy.cfg.before") == before
    live = machine.run("cat /etc/haproxy/haproxy.cfg")
    for line in (
        "user haproxy",
        "group haproxy",
        "chroot /var/lib/haproxy",
        "stats socket /run/haproxy/admin.sock mode 660",
    ):
        assert f"    {line}" in live
    assert machine.show("serf-haproxy", "StatusText").startswith(("RELOADED", "UNCHANGED", "APPLIED"))
    # The exit code of `status` says that there is no server yet.
    shown = machine.enter("/bin/sh", "-c", read_blocks("A balancer")[1]).stdout
    assert "Active: active (running)" in shown
    assert "last pass: " in shown
    assert machine.run("systemctl --failed --no-legend --plain") == ""
    assert machine.run("serf-haproxy install balancer").count("kept ") == 3


def test_a_unit_becomes_a_node_that_leaves_before_it_stops(machine: Machine) -> None:
    """The Serf agent starts after the application and leaves before its stop; a restart brings both back."""
    machine.run(f"echo '{APPLICATION}' > /etc/systemd/system/app.service")
    machine.run(read_blocks("A node")[0].split("\n", 1)[0])
    own = {"bind": "10.9.0.2:7946", "rpc_addr": "127.0.0.1:7374", "node_name": "web1", "retry_join": ["10.9.0.1"]}
    agent = json.loads(machine.run("cat /etc/serf-haproxy/node.json")) | own
    machine.run(f"echo '{json.dumps(agent)}' > /etc/serf-haproxy/node.json")
    machine.run("systemctl daemon-reload; systemctl start app")

    def answers() -> bool:
        return machine.enter("curl", "-sfo", "/dev/null", "http://127.0.0.1/").returncode == 0

    wait_for(answers, machine.read_journal)
    machine.run("systemctl restart app")
    left, stopped = (
        int(machine.show(unit, name))
        for unit, name in (
            ("serf-haproxy-node", "InactiveEnterTimestampMonotonic"),
            ("app", "InactiveEnterTimestampMonotonic"),
        )
    )
    assert 0 < left <= stopped
    machine.wait_active("app", "serf-haproxy-node")
    wait_for(answers, machine.read_journal)
    assert "serf: EventMemberLeave: web1" in machine.read_journal("--unit=serf-haproxy-agent", "--lines=1000")
    machine.run("systemctl stop app")
    assert machine.show("serf-haproxy-node", "ActiveState") == "inactive"
    machine.run("systemctl start app")
    machine.wait_active("serf-haproxy-node")
    wait_for(answers, machine.read_journal)


def test_a_daemon_that_hangs_is_restarted(machine: Machine) -> None:
    """A daemon whose loop stands still is ended and started again; HAProxy's servers stay."""
    machine.run(
        "mkdir -p /run/systemd/system/serf-haproxy.service.d;"
        "printf '[Service]\\nWatchdogSec=5\\n' > /run/systemd/system/serf-haproxy.service.d/test.conf;"
        "systemctl daemon-reload; systemctl restart serf-haproxy"
    )
    servers = machine.run("grep -c '  server ' /etc/haproxy/haproxy.cfg")
    machine.run("kill -STOP $(systemctl show --value --property MainPID serf-haproxy)")
    wait_for(lambda: machine.show("serf-haproxy", "NRestarts") == "1", machine.read_journal)
    machine.wait_active("serf-haproxy")
    assert machine.run("grep -c '  server ' /etc/haproxy/haproxy.cfg") == servers


def test_a_broken_configuration_does_not_keep_haproxy_down(machine: Machine) -> None:
    """Before HAProxy starts, a configuration that it refuses is replaced by the last one that it confirmed."""
    machine.run("echo nonsense > /etc/haproxy/haproxy.cfg; systemctl restart haproxy")
    machine.wait_active("haproxy", "serf-haproxy")
    assert "nonsense" not in machine.run("cat /etc/haproxy/haproxy.cfg")


def test_the_journal_has_levels(machine: Machine) -> None:
    """A line of the daemon has its own level in the journal."""
    lines = machine.read_journal("--unit=serf-haproxy", "--output=json", "--lines=1000").splitlines()
    levels = {entry["PRIORITY"] for entry in map(json.loads, lines) if "level=INFO" in str(entry["MESSAGE"])}
    assert levels == {"6"}
