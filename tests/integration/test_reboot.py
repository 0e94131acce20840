"""What a reboot, an empty node directory and foreign files leave of HAProxy's servers."""

import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from integration.agents import run_serf
from integration.proxy import Proxy, free_port, wait_for
from integration.test_resident import resident, said
from serf_haproxy.control import reconcile
from serf_haproxy.control.boot import boot
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.roster import Roster


def record_three(proxy: Proxy) -> None:
    """Have three nodes served."""
    for number in (1, 2, 3):
        proxy.record(f"web{number}", 8000 + number)
    assert proxy.run_pass().verdict is Verdict.APPLIED


def run_pass(proxy: Proxy, *names: str) -> Outcome:
    """Make a pass with a roster of these members, each on a port of its own."""
    members = {name: ("alive", make_member(name, "127.0.0.1", {"port": str(8000 + int(name[3:]))})) for name in names}
    return reconcile.reconcile(proxy.settings, lambda: Roster(time.time_ns(), "lb1", members))


@pytest.mark.parametrize("serf_answers", [False, True])
def test_servers_outlive_a_node_directory_in_memory(proxy: Proxy, serf_answers: bool) -> None:
    """A reboot takes the node files: servers stay while Serf does not answer, or does not know anybody yet."""
    record_three(proxy)
    shutil.rmtree(proxy.settings.nodes_dir)
    if not serf_answers:
        with resident(proxy):
            wait_for(lambda: len(list(Path(proxy.settings.nodes_dir).glob("web*"))) == 3, "node files")
            assert proxy.servers() == {"web1", "web2", "web3"}
        assert "server web2" in Path(proxy.settings.config_path).read_text()
        return
    host, port = proxy.settings.rpc_addr
    with run_serf("lb1", host, port, "role=balancer"), resident(proxy):
        wait_for(lambda: said(proxy, "HELD"), "all are missing in the roster, and held")
        assert proxy.servers() == {"web1", "web2", "web3"}


def test_a_haproxy_that_starts_after_a_reboot_has_its_servers(proxy: Proxy) -> None:
    """With neither node files nor a live file, `boot` makes a configuration of those that were served."""
    record_three(proxy)
    shutil.rmtree(proxy.settings.nodes_dir)
    for suffix in ("", ".good"):
        Path(f"{proxy.settings.config_path}{suffix}").unlink(missing_ok=True)
    reconcile.prepare_directories(proxy.settings)
    boot(proxy.settings)
    assert Path(proxy.settings.config_path).read_text().count("\n    server web") == 3


def test_a_reaped_node_does_not_come_back(proxy: Proxy) -> None:
    """A node file that a handler removed stays away, also when it was the last one and Serf does not answer."""
    record_three(proxy)
    for name in ("web1", "web2", "web3"):
        nodes.forget(proxy.settings.nodes_dir, name)
    with resident(proxy):
        wait_for(lambda: proxy.servers() == set(), "all are gone")


def test_a_foreign_directory_hinders_nobody_else(proxy: Proxy) -> None:
    """What cannot be written or removed in the node directory is a problem that is told; the pass goes on."""
    Path(proxy.settings.nodes_dir, "web9").mkdir()
    old = Path(proxy.settings.nodes_dir, ".web1.77")
    old.mkdir()
    os.utime(old, (0, 0))
    outcome = run_pass(proxy, "web5", "web9")
    assert proxy.servers() == {"web5", "web9"}
    assert any("cannot write" in problem and "nodes/web9" in problem for problem in outcome.problems)
    assert any("'.web1.77'" in problem for problem in outcome.problems)


def test_a_configuration_of_somebody_else_is_kept(short_dir: Path) -> None:
    """What stood in the live file's place before ours is kept, and is back when ours cannot be loaded."""
    proxy = Proxy(short_dir)
    live, kept = Path(proxy.settings.config_path), Path(f"{proxy.settings.config_path}.before")
    own = f"global\n    stats socket {proxy.settings.runtime_socket} level admin\ndefaults\n    timeout client 1s\n"
    own += f"frontend own\n    bind 127.0.0.1:{free_port()}\n"
    live.write_text(own)
    try:
        proxy.start()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            bind = f"127.0.0.1:{taken.getsockname()[1]}"
            assert proxy.run_pass(frontend_bind=bind).verdict is Verdict.UNCONFIRMED
        assert (live.read_text(), kept.read_text()) == (own, own)
        assert proxy.run_pass().verdict is Verdict.RELOADED
        live.write_text("garbage\n")
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert kept.read_text() == own
    finally:
        proxy.stop()
