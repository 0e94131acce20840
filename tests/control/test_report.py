"""`status` and the pass share one decision."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.web import answering
from integration.proxy import Proxy
from serf_haproxy.control import preview, reconcile
from serf_haproxy.control.report import read_report
from serf_haproxy.policy.decision import Decision, State
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.show.document import to_json
from serf_haproxy.show.table import format_table

pytestmark = pytest.mark.usefixtures("time_limit")


class Served(Proxy):
    """A real HAProxy, and the ports of applications by node."""

    ports: dict[str, int]


@pytest.fixture
def proxy() -> Iterator[Served]:
    """Yield a real HAProxy that runs the configuration without nodes, and an application."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory, answering() as one, answering() as two:
        served = Served(Path(directory))
        served.ports = {"web1": one.port, "web2": two.port}
        try:
            served.start()
            yield served
        finally:
            served.stop()


def serve(proxy: Served) -> None:
    """Let two nodes serve."""
    proxy.record("web1", proxy.ports["web1"])
    proxy.record("web2", proxy.ports["web2"])


def quarantine(proxy: Served) -> None:
    """Give a node a wrong tag."""
    proxy.record("web3", 0)


def drain(proxy: Served) -> None:
    """Drain a node by its tag."""
    proxy.record("web1", proxy.ports["web1"], drain="true")


def fail(proxy: Served) -> None:
    """Let one of several nodes fail."""
    proxy.record("web2", proxy.ports["web2"], status="failed")
    proxy.settings = proxy.settings.replace(failed_grace_s=60.0)


def leave(proxy: Served) -> None:
    """Let a node leave."""
    proxy.record("web1", proxy.ports["web1"], status="left")


def hold(proxy: Served) -> None:
    """Let all nodes fail, without a grace."""
    for number in (1, 2):
        proxy.record(f"web{number}", proxy.ports[f"web{number}"], status="failed")
    proxy.settings = proxy.settings.replace(failed_grace_s=0.0)


EXPECTED: dict[Callable[[Served], None], dict[str, State]] = {
    serve: {"web1": State.SERVING, "web2": State.SERVING},
    quarantine: {"web1": State.SERVING, "web2": State.SERVING, "web3": State.QUARANTINED},
    drain: {"web1": State.DRAINING, "web2": State.SERVING},
    fail: {"web1": State.SERVING, "web2": State.GRACE},
    leave: {"web1": State.GONE, "web2": State.SERVING},
    hold: {"web1": State.HELD, "web2": State.HELD},
}


@pytest.mark.parametrize("change", EXPECTED, ids=lambda change: change.__name__)
def test_status_and_the_pass_share_one_decision(
    proxy: Served, change: Callable[[Served], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state, the reason and the server of every node are the same in a pass and in the report after it."""
    decided: list[Decision] = []

    def decide(snapshot: Snapshot, *memo: object) -> Decision:
        decided.append(original(snapshot, *memo))
        return decided[-1]

    serve(proxy)
    proxy.run_pass()
    proxy.wait_up("web1", "web2")
    change(proxy)
    original = reconcile.decide
    assert original is preview.decide
    monkeypatch.setattr(reconcile, "decide", decide)
    proxy.run_pass()
    report = read_report(proxy.settings)
    said, shown = decided[-1], report.decision
    assert {name: entry.state for (_, name), entry in said.entries.items()} == EXPECTED[change]
    assert shown.servers == said.servers
    assert [(*entry[:4],) for entry in shown.entries.values()] == [(*entry[:4],) for entry in said.entries.values()]
    listed = {member["name"]: (member["state"], member["reason"]) for member in to_json(report)["members"]}
    assert listed == {name: (entry.state, entry.reason) for (_, name), entry in said.entries.items()}
    table = format_table(report, width=0)
    assert all(entry.reason in table for entry in said.entries.values() if entry.state is not State.SERVING)


def test_the_report_shows_what_is_held_beside_the_verdict(proxy: Served) -> None:
    """A hold does not hide whether the last pass changed anything: it is a condition beside the verdict."""
    serve(proxy)
    proxy.run_pass()
    proxy.wait_up("web1", "web2")
    hold(proxy)
    outcome = proxy.run_pass()
    assert (outcome.verdict, [condition.name for condition in outcome.conditions]) == ("UNCHANGED", ["held"])
    report = to_json(read_report(proxy.settings))
    assert (report["verdict"], [one["name"] for one in report["conditions"]]) == ("UNCHANGED", ["held"])
    assert "\nheld: too many servers were lost at once" in format_table(read_report(proxy.settings))


def test_the_report_keeps_its_old_names_for_one_release(proxy: Served) -> None:
    """The key of the previous release tells the same as the new one."""
    report = to_json(read_report(proxy.settings))
    assert report["resident_runs"] == report["daemon_runs"] is False
