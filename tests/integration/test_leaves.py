"""A member that Serf lists as leaving although it is alive, with real Serf agents."""

import subprocess

from fakes.web import answering
from integration.agents import run_serf
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import log_path, running_daemon, said
from integration.test_orders import find


def list_status(rpc: str, name: str) -> str:
    """Return the status of a member as a Serf agent has it, "" for none."""
    listed = subprocess.run(["serf", "members", f"-rpc-addr={rpc}"], capture_output=True, text=True, check=True)
    return next((line.split()[2] for line in listed.stdout.splitlines() if line.split()[0] == name), "")


def test_a_member_that_leaves_without_end_is_back_once_asked(proxy: Proxy) -> None:
    """Serf itself never corrects that it leaves; the daemon has the member contradict, and it gets requests again.

    Among two members, a Serf agent that believes that the other one leaves tells that to no member: so it stays.
    """
    host, port = proxy.settings.rpc_addr
    rpc, local = f"{host}:{port}", "-profile=local"
    with answering() as web, run_serf("lb1", host, port, "role=balancer", options=(local,)) as gossip:
        join = local, f"-join={gossip}"
        with run_serf("web1", "127.0.0.1", free_port(), "role=web", f"port={web.port}", options=join):
            wait_for(lambda: list_status(rpc, "web1") == "alive", "web1 is a member")
            subprocess.run(["serf", "force-leave", f"-rpc-addr={rpc}", "web1"], check=True, timeout=30)
            assert list_status(rpc, "web1") == "leaving"
            with (
                run_serf("web2", "127.0.0.1", free_port(), "role=web", f"port={web.port}", options=join),
                running_daemon(proxy, SERF_HAPROXY_RESYNC_INTERVAL_S="1"),
            ):
                proxy.wait_up("web2")
                assert find(proxy, "web1")["state"] == "gone"
                wait_for(lambda: list_status(rpc, "web1") == "alive", lambda: log_path(proxy).read_text())
                assert said(proxy, "node web1 has been leaving for 20 s: it is asked whether it does")
                wait_for(lambda: "web1" in proxy.servers(), lambda: log_path(proxy).read_text())
                proxy.wait_up("web1")
                assert find(proxy, "web1")["state"] == "serving"
