"""Passes that are cut short, fail, or meet a template that changes while they run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import probe
from fakes.web import answering
from integration.proxy import Proxy
from serf_haproxy.control import rendering
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.give import Desk, Wish
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.control.report import read_report
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.orders import ON, RELEASE
from serf_haproxy.show.table import format_table

pytestmark = pytest.mark.usefixtures("time_limit")

SERVER_LINE = "server {{ server.name }} {{ server.endpoint }}"


class Cut(Exception):
    """Ends a pass after one of its steps."""


@pytest.fixture
def template(proxy: Proxy) -> Callable[..., str]:
    """Return a function that writes a custom template, the built-in one with replacements, and returns its path."""
    path = Path(proxy.settings.state_dir, "own.j2")

    def write(*replacements: tuple[str, str]) -> str:
        text = Path(rendering.BUILT_IN_TEMPLATE).read_text()
        for before, after in replacements:
            assert before in text
            text = text.replace(before, after)
        path.write_text(text)
        return str(path)

    return write


def read_good(proxy: Proxy) -> str:
    """Return the template that is kept as good, "" for none."""
    return make_edges(proxy.settings).state.read_good_template() or ""


@pytest.mark.parametrize("change", ["broken", "removed"])
def test_a_template_that_changes_during_a_pass_counts_from_the_next_one(
    proxy: Proxy, template: Callable[..., str], change: str
) -> None:
    """A pass uses and keeps the template that it read; the next one follows the last good template."""
    path = template(("retries {{ defaults.retries }}", "retries 2"))
    proxy.record("web1", 8001)

    def edit(step: str) -> None:
        if step == "published" and change == "broken":
            template(("balance {{ service.balance }}", "balance bogus"))
        elif step == "published":
            os.unlink(path)

    outcome = reconcile(proxy.settings.replace(template_path=path), lambda: None, on_step=edit)
    assert outcome.verdict is Verdict.RELOADED
    assert "retries 2" in read_good(proxy)
    proxy.record("web2", 8001)
    assert proxy.run_pass(template_path=path).verdict is Verdict.REJECTED
    assert proxy.servers() == {"web1", "web2"}
    assert "retries 2" in read_good(proxy)


def test_a_template_with_refused_servers_is_never_kept_as_good(proxy: Proxy, template: Callable[..., str]) -> None:
    """While servers are left out, also remembered ones, the template is not proven."""
    path = template((SERVER_LINE, SERVER_LINE + "{{ ' bogus' if 'bad' in server.name }}"))
    for name in ("web1", "web2", "bad1"):
        proxy.record(name, 8001)
    for _ in range(3):
        proxy.run_pass(template_path=path)
        assert proxy.servers() == {"web1", "web2"}
        assert read_good(proxy) == ""


def test_most_servers_are_never_left_out_step_by_step(proxy: Proxy, template: Callable[..., str]) -> None:
    """Servers that are known to be refused count, when the next ones are refused too: then the template is wrong."""
    path = template((SERVER_LINE, SERVER_LINE + "{{ ' bogus' if 'bad' in server.name }}"))
    good = {f"web{number}" for number in range(4)}
    for name in (*good, "bad1", "bad2", "bad3"):
        proxy.record(name, 8001)
    assert proxy.run_pass(template_path=path).verdict is not Verdict.REJECTED
    assert proxy.servers() == good
    for name in ("bad4", "bad5", "bad6"):
        proxy.record(name, 8001)
    assert proxy.run_pass(template_path=path).verdict is Verdict.REJECTED


def test_a_node_file_that_is_removed_after_a_cut_pass_is_asked_for(proxy: Proxy) -> None:
    """A pass that was cut after it changed HAProxy is repaired by the next one, which asks Serf, but only once."""
    proxy.record("web1", 8001)
    proxy.run_pass()
    proxy.record("web2", 8002)

    def cut(step: str) -> None:
        if step == "published":
            raise Cut

    with pytest.raises(Cut):
        reconcile(proxy.settings, lambda: None, on_step=cut)
    assert proxy.servers() == {"web1", "web2"}
    os.unlink(Path(proxy.settings.nodes_dir, "web2"))
    asked: list[None] = []
    reconcile(proxy.settings, lambda: asked.append(None), is_resync=False)
    assert asked == [None]
    reconcile(proxy.settings, lambda: asked.append(None), is_resync=False)
    assert asked == [None]


def test_flaps_count_while_passes_fail(proxy: Proxy) -> None:
    """Failures and returns are remembered even when nothing can be applied."""
    for number in (1, 2, 3):
        proxy.record(f"web{number}", 8001)
    proxy.run_pass()
    for number in range(3):
        for status in ("failed", "alive"):
            proxy.record("web3", 8001, status=status)
            proxy.record(f"other{number}-{status}", 8001)
            with pytest.raises(SystemFault):
                proxy.run_pass(haproxy_bin="/nonexistent")
    assert make_edges(proxy.settings).state.read_flaps()["nodes", "web3"].penalty > 5.5


def test_a_node_file_that_cannot_be_removed_is_a_problem_of_the_pass(proxy: Proxy) -> None:
    """The outcome of a pass is not lost when a node file of a forgotten member stays."""
    from serf_haproxy.serf import nodes
    from serf_haproxy.serf.roster import Roster

    proxy.record("web1", 8001)
    proxy.record("web2", 8002, status="left")
    forget = nodes.forget

    def refuse(_nodes_dir: str, name: str) -> bool:
        raise SystemFault(f"cannot remove {name}")

    nodes.forget = refuse
    try:
        outcome = reconcile(proxy.settings, lambda: Roster(2**62, "lb1", {}))
    finally:
        nodes.forget = forget
    assert "cannot remove web2" in outcome.problems
    assert probe.read_record(proxy.settings).verdict == outcome.verdict


def test_status_shows_no_hold_after_its_release(proxy: Proxy) -> None:
    """The conditions in the report follow from its own decision, not from the last pass."""
    held = {"failed_grace_s": 0.0, "guard_hold_s": 600.0}
    with answering() as web:
        for number in (1, 2):
            proxy.record(f"web{number}", web.port)
        proxy.run_pass()
        proxy.wait_up("web1", "web2")
        for number in (1, 2):
            proxy.record(f"web{number}", web.port, status="failed")
        assert proxy.run_pass(**held).has_condition("held")
    settings = proxy.settings.replace(**held)
    assert "\nheld: " in format_table(read_report(settings))
    os.utime(Path(settings.nodes_dir, "web1"), (1, 1))
    os.utime(Path(settings.nodes_dir, "web2"), (1, 1))
    desk = Desk(settings)
    desk.give([desk.make(RELEASE, ON, Wish())])
    make_edges(settings).orders.take_given()
    table = format_table(read_report(settings))
    assert "gone" in table
    assert "\nheld: " not in table
