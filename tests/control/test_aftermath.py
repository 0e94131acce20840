"""What is told of a pass: which lines the history gets, from tables of snapshots and outcomes."""

import time
from pathlib import Path

import pytest

from serf_haproxy.config.drift import Drift
from serf_haproxy.control.aftermath import Aftermath
from serf_haproxy.control.edges import Edges, make_edges
from serf_haproxy.control.history import Happening, Wanted
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.orders import DRAIN, MAINT, ON, PAUSE, RELEASE, UNDONE, Order, list_active
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Known, Snapshot
from serf_haproxy.serf.events import ALIVE, LEFT, make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.settings import Settings

FINE = Outcome(Verdict.UNCHANGED, "HAProxy runs what it should", "d")
NOW_NS = time.time_ns()
Line = tuple[str, str, str, str, str]


class Telling:
    """Passes of one process, and the lines that the history gets of each."""

    def __init__(self, state_dir: Path) -> None:
        self.edges: Edges = make_edges(Settings(state_dir=str(state_dir)))
        self.aftermath = Aftermath()
        self._line_count = 0
        self._before: Decision | None = None

    def tell(self, outcome: Outcome = FINE, known: dict[str, Known] | None = None, **statuses: str) -> list[Line]:
        """Tell of a pass that finds these nodes; return kind, node, what, why and who of each new line."""
        now_ms = time.time_ns() // 1_000_000
        self.edges.orders.take((), now_ms)
        files = {name: NodeFile(status, make_member(name, "10.0.0.1", {}), NOW_NS) for name, status in statuses.items()}
        snapshot = Snapshot(
            NOW_NS,
            Rules(8080, self_name="lb1"),
            files,
            known={("nodes", name): one for name, one in (known or {}).items()},
            orders=list_active(self.edges.orders.read(), now_ms),
        )
        decision = decide(snapshot)
        before = self._before.entries if self._before else {}
        changed = [key for key, entry in decision.entries.items() if before.get(key) != entry]
        self._before = decision
        assert self.aftermath.tell(self.edges, snapshot, decision, outcome, changed) == ()
        return self.read()

    def read(self) -> list[Line]:
        """Return the new lines."""
        lines: list[Happening] = list(self.edges.history.read(Wanted()))
        new, self._line_count = lines[self._line_count :], len(lines)
        assert {one.balancer for one in new} <= {"lb1"}
        return [(one.kind, one.node, one.what, one.why, one.by) for one in new]

    def order(self, verb: str, mode: str, node: str = "", **more: str) -> None:
        """Give an order."""
        order = Order(verb, "", node, mode, time.time_ns() // 1_000_000, "lb1", author="alice")
        self.edges.orders.give([order._replace(**more)])


@pytest.fixture
def telling(tmp_path: Path) -> Telling:
    return Telling(tmp_path)


def test_a_node_is_told_when_its_entry_is_another_one(telling: Telling) -> None:
    """It comes, leaves and is forgotten; a pass that changes nothing tells nothing."""
    assert telling.tell(web1=ALIVE) == [("node", "web1", "unknown -> serving 10.0.0.1:8080", "it is alive in Serf", "")]
    assert telling.tell(web1=ALIVE) == []
    assert telling.tell(web1=LEFT) == [("node", "web1", "serving 10.0.0.1:8080 -> gone", "it left", "")]
    assert telling.tell() == [("node", "web1", "gone -> forgotten", "Serf has no such node", "")]


def test_a_new_process_knows_what_was_served(telling: Telling) -> None:
    """After a restart only a change is told: of a server that was known, and of a node that comes."""
    server = Server("web1", "10.0.0.1", 8080, None)
    known = {"web1": Known(server, was_up=True, is_served=True)}
    assert telling.tell(known=known, web1=ALIVE) == []
    elsewhere = {"web1": Known(server._replace(port=9), was_up=True, is_served=True)}
    again = Telling(Path(telling.edges.state.daemon_lock_path).parent)
    assert [line[2] for line in again.tell(known=elsewhere, web1=ALIVE)] == ["served -> serving 10.0.0.1:8080"]
    again = Telling(Path(telling.edges.state.daemon_lock_path).parent)
    again.read()
    assert again.tell(web2=LEFT) == []  # it has no server, as before


def test_an_order_is_told_once_with_who_gave_it(telling: Telling) -> None:
    """The order, the decision that follows from it, and its end."""
    telling.tell(web1=ALIVE, web2=ALIVE)
    telling.order(MAINT, DRAIN, "web1", reason="disk swap")
    (order, node) = telling.tell(web1=ALIVE, web2=ALIVE)
    assert (order[:3], order[3].startswith("an order drains it: disk swap (alice at lb1, "), order[4]) == (
        ("order", "web1", "maint drain"),
        True,
        "alice",
    )
    assert node[2:] == ("serving 10.0.0.1:8080 -> draining 10.0.0.1:8080 weight 0", order[3], "alice")
    assert telling.tell(web1=ALIVE, web2=ALIVE) == []
    telling.order(MAINT, UNDONE, "web1")
    assert telling.tell(web1=ALIVE, web2=ALIVE) == [
        ("order", "web1", "maint unset", "the order about it is undone", "alice"),
        (
            "node",
            "web1",
            "draining 10.0.0.1:8080 weight 0 -> serving 10.0.0.1:8080",
            "it is alive in Serf",
            "",
        ),
    ]


@pytest.mark.parametrize(
    ("verb", "mode", "what", "why"),
    [
        (PAUSE, ON, "pause", "an order to pause (alice at lb1, "),
        (PAUSE, UNDONE, "resume", "passes may change HAProxy again"),
        (RELEASE, ON, "release", "an order to release (alice at lb1, "),
    ],
)
def test_orders_about_the_balancer_are_told(telling: Telling, verb: str, mode: str, what: str, why: str) -> None:
    """Each has its words, and no node."""
    telling.order(verb, mode)
    ((kind, node, said, reason, by),) = telling.tell()
    assert (kind, node, said, reason.startswith(why), by) == ("order", "", what, True, "alice")


def test_orders_that_were_taken_before_this_process_are_not_told_again(telling: Telling, tmp_path: Path) -> None:
    """A restart does not repeat them."""
    telling.order(MAINT, DRAIN, "web9")
    assert len(telling.tell()) == 1
    time.sleep(0.003)  # its time is one of whole milliseconds
    again = Telling(tmp_path)
    again.read()
    assert again.tell() == []


def test_a_pass_is_told_when_it_changed_something_or_failed_anew(telling: Telling) -> None:
    """What fails again and again is one line; the end of it is one, and a pass without news is none."""
    rejected = Outcome(Verdict.REJECTED, "HAProxy refuses it", "d")
    applied = Outcome(Verdict.APPLIED, "servers changed: +web1", "e")
    paused = Outcome(Verdict.PAUSED, "an order to pause", "e")
    story = [FINE, applied, FINE, applied, applied, rejected, rejected, FINE, FINE, paused, paused, FINE]
    told = [[line[2] for line in telling.tell(outcome)] for outcome in story]
    assert told == [
        *([], ["APPLIED"], [], ["APPLIED"], ["APPLIED"], ["REJECTED"], []),
        *(["UNCHANGED"], [], ["PAUSED"], [], ["UNCHANGED"]),
    ]


def test_a_drift_names_the_service_of_its_section(telling: Telling) -> None:
    """A person set it at HAProxy's socket."""
    drifted = Outcome(Verdict.APPLIED, "had drifted", "d", drifts=(Drift(("nodes", "web1"), "in maintenance"),))
    assert telling.tell(drifted)[0] == (
        *("drift", "web1", "it was in maintenance", "changed at HAProxy's socket; it is put right"),
        "",
    )


def test_a_history_that_cannot_be_written_is_a_complaint(telling: Telling, tmp_path: Path) -> None:
    """The pass goes on, and the gap is named."""
    (tmp_path / "history.jsonl").mkdir()
    snapshot = Snapshot(
        NOW_NS, Rules(8080, self_name="lb1"), {"web1": NodeFile(ALIVE, make_member("web1", "::1", {}), 1)}
    )
    decision = decide(snapshot)
    (said,) = telling.aftermath.tell(telling.edges, snapshot, decision, FINE, list(decision.entries))
    assert said.endswith("history.jsonl: Is a directory; the history has a gap")
