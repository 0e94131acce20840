"""HAProxy's servers after a reboot, with an empty node directory, and with foreign files."""

import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from integration.agents import run_serf
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import running_daemon, said
from serf_haproxy.control import directories, reconcile
from serf_haproxy.control.boot import boot
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.serf import nodes
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.roster import Roster


def record_three(proxy: Proxy) -> None:
    """Record three nodes and run a pass that serves them."""
    for number in (1, 2, 3):
        proxy.record(f"web{number}", 8000 + number)
    assert proxy.run_pass().verdict is Verdict.APPLIED


def run_pass(proxy: Proxy, *names: str) -> Outcome:
    """Run a pass with a roster of these members, each with its own port."""
    members = {name: ("alive", make_member(name, "127.0.0.1", {"port": str(8000 + int(name[3:]))})) for name in names}
    return reconcile.reconcile(proxy.settings, lambda: Roster(time.time_ns(), "lb1", members))


@pytest.mark.parametrize("serf_answers", [False, True])
def test_servers_outlive_a_node_directory_in_memory(proxy: Proxy, serf_answers: bool) -> None:
    """After a reboot removed the node files, servers stay while Serf does not answer or knows no member yet."""
    record_three(proxy)
    shutil.rmtree(proxy.settings.nodes_dir)
    if not serf_answers:
        with running_daemon(proxy):
            wait_for(lambda: len(list(Path(proxy.settings.nodes_dir).glob("web*"))) == 3, "node files")
            assert proxy.servers() == {"web1", "web2", "web3"}
        assert "server web2" in Path(proxy.settings.config_path).read_text()
        return
    host, port = proxy.settings.rpc_addr
    with run_serf("lb1", host, port, "role=balancer"), running_daemon(proxy):
        wait_for(lambda: said(proxy, "HELD"), "all are missing in the roster and held")
        assert proxy.servers() == {"web1", "web2", "web3"}


def test_a_haproxy_that_starts_after_a_reboot_has_its_servers(proxy: Proxy) -> None:
    """With neither node files nor a live file, `boot` writes a configuration with the servers of the last pass."""
    record_three(proxy)
    shutil.rmtree(proxy.settings.nodes_dir)
    for suffix in ("", ".good"):
        Path(f"{proxy.settings.config_path}{suffix}").unlink(missing_ok=True)
    directories.prepare_directories(proxy.settings)
    boot(proxy.settings)
    assert Path(proxy.settings.config_path).read_text().count("\n    server web") == 3


def test_a_reaped_node_does_not_come_back(proxy: Proxy) -> None:
    """A node file that the handler removed is not restored, even if it was the last one and Serf does not answer."""
    record_three(proxy)
    for name in ("web1", "web2", "web3"):
        nodes.forget(proxy.settings.nodes_dir, name)
    with running_daemon(proxy):
        wait_for(lambda: proxy.servers() == set(), "all are removed")


def test_a_foreign_directory_affects_no_other_node(proxy: Proxy) -> None:
    """Paths in the node directory that cannot be written or removed are reported as problems; the pass continues."""
    Path(proxy.settings.nodes_dir, "web9").mkdir()
    old = Path(proxy.settings.nodes_dir, ".web1.77")
    old.mkdir()
    os.utime(old, (0, 0))
    outcome = run_pass(proxy, "web5", "web9")
    assert proxy.servers() == {"web5", "web9"}
    assert any("cannot write" in problem and "nodes/web9" in problem for problem in outcome.problems)
    assert any("'.web1.77'" in problem for problem in outcome.problems)


def test_a_foreign_configuration_is_kept(short_dir: Path) -> None:
    """A live file that this program did not write is kept, and restored when HAProxy cannot load the new one."""
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
