"""HAProxy starts, whatever is broken: the live file, the last good one, the template, the server state."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from integration.proxy import Proxy, wait_for
from integration.test_cluster import Cluster, cluster  # noqa: F401 - a fixture
from integration.test_resident import COMMAND
from serf_haproxy import goal, haproxy
from serf_haproxy.state import write_good_template


def boot(proxy: Proxy, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `serf-haproxy boot`."""
    environ = os.environ | proxy.environment | environment
    return subprocess.run([*COMMAND, "boot"], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "damage", [b"", b"\0\xff\n", b"global\n    bogus\n", None], ids=["empty", "bytes", "bogus", "none"]
)
def test_haproxy_starts_with_the_last_confirmed_configuration(cluster: Cluster, damage: bytes | None) -> None:  # noqa: F811
    """The live file is broken while the resident is away, and HAProxy is killed: it is back and serves."""
    live = Path(cluster.settings.config_path)
    cluster.lab.add("web3")  # the configuration before it becomes the last confirmed one
    cluster.control("agent", "-wd", "-d")
    if damage is None:
        live.unlink()
    else:
        live.write_bytes(damage)
    Path(cluster.settings.server_state_path).write_bytes(b"\0broken\n")
    before = cluster.pid("haproxy")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: cluster.pid("haproxy") not in (before, -1), "HAProxy is back")
    wait_for(lambda: cluster.servers() >= {"web1", "web2"}, "with servers")
    wait_for(lambda: cluster.seen() >= {"127.0.1.1", "127.0.1.2"}, "that serve")
    cluster.control("agent", "-wU", "-u")
    cluster.wait_servers("web1", "web2", "web3")
    wait_for(cluster.is_right, "file and HAProxy agree")


def test_every_choice_is_tried_in_turn(tmp_path: Path) -> None:
    """The last confirmed configuration, then the node files, the last good template, the built-in one, no servers."""
    proxy = Proxy(tmp_path)
    proxy.record("web1", 8001)
    own = tmp_path / "own.j2"
    own.write_text("bogus {{ nothing }}")
    environ = {"SERF_HAPROXY_TEMPLATE_PATH": str(own)}
    live, good = Path(proxy.settings.config_path), Path(f"{proxy.settings.config_path}.good")

    good.write_text(f"# confirmed\n{goal.compute(proxy.settings, ()).text}")
    ended = boot(proxy, **environ)
    assert ended.stdout == "HAProxy starts with the last one that HAProxy confirmed\n"
    assert live.read_text() == good.read_text()

    good.write_text("bogus")
    ended = boot(proxy, **environ)
    assert (
        "starts with one made with the built-in template; not with the last one that HAProxy confirmed:" in ended.stdout
    )
    assert "'nothing' is undefined" in ended.stdout
    assert "server web1 127.0.0.1:8001" in live.read_text()

    write_good_template(proxy.settings, "# mine\n" + Path(goal.BUILT_IN_TEMPLATE).read_text())
    assert "starts with one made with the last good template" in boot(proxy, **environ).stdout
    assert live.read_text().startswith("# mine\n")
    assert "server web1" in live.read_text()

    good.unlink()
    assert boot(proxy).stdout == "HAProxy starts with one made of the node files\n"
    assert haproxy.check(proxy.settings, live.read_text()) is None


def test_nothing_that_can_be_written_is_told(tmp_path: Path) -> None:
    """Where the live file cannot be replaced, the command says so and ends with exit code 111."""
    proxy = Proxy(tmp_path)
    ended = boot(proxy, SERF_HAPROXY_CONFIG_PATH="/proc/haproxy.cfg")
    assert ended.returncode == 111
    assert "/proc/haproxy.cfg" in ended.stderr
