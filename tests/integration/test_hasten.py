"""What Serf's log announces is in HAProxy ahead of the pass, with a real Serf agent, HAProxy and daemon."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from integration.agents import run_serf
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import running_daemon, said
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.policy.orders import ON, PAUSE, Order
from serf_haproxy.serf.events import ALIVE, make_member

LATE = {"SERF_HAPROXY_QUIET_S": "8", "SERF_HAPROXY_MAX_WAIT_S": "8"}  # the pass comes much later


def published(proxy: Proxy) -> set[str]:
    """Return the servers of the published file."""
    return list_servers(proxy.settings.config_path)


def list_servers(path: str) -> set[str]:
    """Return the servers of a configuration."""
    lines = Path(path).read_text().splitlines()
    return {words[1] for words in map(str.split, lines) if words[:1] == ["server"] and words[1] != "newest"}


def weights(proxy: Proxy) -> dict[str, int]:
    """Return the weights that HAProxy has."""
    running = probe.read_running(proxy.settings)
    return {name: seen.weight for (_, name), seen in ((running and running.servers) or {}).items()}


@contextlib.contextmanager
def joined(bind: str, name: str, *tags: str) -> Iterator[tuple[str, int]]:
    """Run a Serf agent that has joined a cluster; yield its RPC address."""
    port = free_port("127.0.1.1")
    with run_serf(name, "127.0.1.1", port, "role=web", *tags, options=(f"-join={bind}",)):
        yield "127.0.1.1", port


def test_a_join_and_a_leave_are_in_haproxy_before_the_file(proxy: Proxy) -> None:
    """HAProxy has a new server, and drains one that leaves, seconds before the pass publishes its file."""
    host, port = proxy.settings.rpc_addr
    with (
        run_serf("lb1", host, port, "role=balancer") as bind,
        joined(bind, "web1", "port=8001"),
        running_daemon(proxy, **LATE),
    ):
        wait_for(lambda: published(proxy) == {"web1"} and "web1" in weights(proxy), "web1 is served", 30)
        with joined(bind, "web2", "port=8002") as rpc:
            wait_for(lambda: "web2" in weights(proxy), "web2 is in HAProxy")
            assert published(proxy) == {"web1"}
            wait_for(lambda: published(proxy) == {"web1", "web2"}, "the file follows", 30)
            assert list_servers(f"{proxy.settings.config_path}.good") == {"web1"}, "the file before is kept as good"
            wait_for(lambda: said(proxy, "APPLIED servers changed: +web2"), "the change is logged")
            subprocess.run(["serf", "leave", f"-rpc-addr={rpc[0]}:{rpc[1]}"], check=True, capture_output=True)
        # It is the only other server, and neither is up: the whole decides, at once.
        wait_for(lambda: published(proxy) == {"web1"}, "web2 is gone", 30)
        assert proxy.reload_count() <= 1


def test_where_haproxy_does_not_obey_the_pass_repairs(proxy: Proxy) -> None:
    """A command that HAProxy refuses is no success, and the pass that follows brings everything where it should be."""
    reconciler = Reconciler(proxy.settings)
    proxy.record("web1", 8001)
    assert reconciler.reconcile(lambda: None).verdict in (Verdict.APPLIED, Verdict.RELOADED)
    member = make_member("web2", "127.0.1.2", {"role": "web", "port": "8002"})
    make_edges(proxy.settings).runtime.change(["add server nodes/web2 127.0.1.9:9 check inter 1h"])
    assert not reconciler.hasten({"web2"}, lambda names: (0, dict.fromkeys(names, (ALIVE, member))))
    assert not reconciler.hasten({"web2"}, lambda names: (0, dict.fromkeys(names, (ALIVE, member)))), "it was touched"
    assert reconciler.reconcile(lambda: None, is_resync=False).is_in_force
    assert weights(proxy).keys() == {"web1", "web2"}
    assert {one.endpoint for one in probe.read_running(proxy.settings).servers.values()} == {
        "127.0.0.1:8001",
        "127.0.1.2:8002",
    }


@pytest.mark.parametrize("fault", ["paused", "frozen", "no pass yet", "unknown member"])
def test_nothing_is_hastened_where_the_ground_is_not_firm(
    proxy: Proxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a pause, while HAProxy does not answer, before the first pass, and for what Serf does not know."""
    reconciler = Reconciler(proxy.settings)
    proxy.record("web1", 8001)
    if fault != "no pass yet":
        assert reconciler.reconcile(lambda: None).is_in_force
    if fault == "paused":
        now_ms = time.time_ns() // 1_000_000
        make_edges(proxy.settings).orders.take([Order(PAUSE, "", "", ON, now_ms, "lb1")], now_ms)
        assert reconciler.reconcile(lambda: None).verdict is Verdict.PAUSED
    if fault == "frozen":
        monkeypatch.setattr(Runtime, "read_description", lambda _: None)
    member = make_member("web2", "127.0.1.2", {"role": "web", "port": "8002"})
    listed = {} if fault == "unknown member" else {"web2": (ALIVE, member)}
    assert not reconciler.hasten({"web2"}, lambda _: (0, listed))
    assert "web2" not in weights(proxy)
