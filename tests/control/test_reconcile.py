"""A pass as its caller sees it: when Serf is asked, and what the pass only reads."""

import os
import time
from pathlib import Path

import pytest

from integration.proxy import Proxy
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.give import Desk, Wish
from serf_haproxy.control.history import History, Wanted
from serf_haproxy.control.preview import preview
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.policy.orders import DRAIN, MAINT
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.nodes import record
from serf_haproxy.serf.roster import Roster
from serf_haproxy.system.locks import is_locked, locked

pytestmark = pytest.mark.usefixtures("time_limit")


def test_serf_is_asked_under_the_lock_of_the_pass(proxy: Proxy) -> None:
    """A roster cannot get old while the pass waits for another one: Serf is asked when the pass has the lock."""
    lock_path = make_edges(proxy.settings).state.pass_lock_path
    asked = []

    def ask() -> None:
        asked.append(is_locked(lock_path))

    with locked(lock_path, 0, "a test"):
        assert is_locked(lock_path)
    reconcile(proxy.settings, ask)
    assert asked == [True]


def test_an_event_during_the_answer_of_serf_counts(proxy: Proxy) -> None:
    """A node file that is written after Serf was asked is newer than its roster."""
    member = make_member("web1", "127.0.0.1", {"port": "8001"})

    def ask() -> Roster:
        roster = Roster(time.time_ns() - 1_000_000_000, "lb1", {})
        record(proxy.settings.nodes_dir, "alive", member)
        return roster

    proxy.record("web2", 8002)
    reconcile(proxy.settings, ask)
    assert Path(proxy.settings.nodes_dir, "web1").read_text().startswith("alive\t")


def test_an_order_given_during_a_pass_is_told_before_what_it_does(proxy: Proxy) -> None:
    """A command that gives an order between the steps of a pass: the history has the order, then its effect."""
    for number in (1, 2):
        proxy.record(f"web{number}", 8000 + number)
    proxy.run_pass()

    def ask() -> None:
        desk = Desk(proxy.settings)
        desk.give([desk.make(MAINT, DRAIN, Wish(author="alice", reason="disk swap"), node="web1")])

    reconcile(proxy.settings, ask)
    lines = History(proxy.settings.state_dir).read(Wanted())
    assert [one.kind for one in lines if one.by == "alice"] == ["order", "node"]


def test_observing_changes_nothing(proxy: Proxy) -> None:
    """Observe and decide write no file, whatever there is to correct."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    proxy.record("web2", 0)
    Path(proxy.settings.nodes_dir, "stray file").write_text("x")

    def list_files() -> dict[str, tuple[int, int]]:
        paths = [Path(root, name) for root, _, names in os.walk(proxy.settings.state_dir) for name in names]
        paths += [
            *Path(proxy.settings.nodes_dir).iterdir(),
            *Path(proxy.settings.config_path).parent.glob("haproxy.cfg*"),
        ]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}

    before = list_files()
    assert [server.name for server in preview(proxy.settings).decision.servers] == ["web1"]
    assert list_files() == before
