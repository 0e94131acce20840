"""The decision as a table: from a snapshot of one node among others to its entry."""

import pytest

from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.damping import Flap, FlapRules
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.judgement import Memo
from serf_haproxy.policy.orders import DRAIN, MAINT, STOP, Order, Orders, list_active, merge
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone, Known, Snapshot, View
from serf_haproxy.serf.events import ALIVE, FAILED, LEAVING, LEFT, Member, make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.system.network import read_networks

S = 1_000_000_000
NOW_NS = 1_000_000 * S
KEY = ("nodes", "web1")
RULES = Rules(
    3000,
    roles=("web",),
    balancer_roles=("balancer",),
    drain_timeout_s=30,
    failed_grace_s=10,
    guard=GuardRules(0.5, 60, 3600),
    flaps=FlapRules(6, 60),
)
SERVER = Server("web1", "10.0.0.1", 8080, None)


def web(name: str = "web1", address: str = "10.0.0.1", **tags: str) -> Member:
    """Return a member with the role web and these tags."""
    return make_member(name, address, {"role": "web", "port": "8080"} | tags)


def file(member: Member, status: str = ALIVE, age_s: float = 20) -> NodeFile:
    """Return a node file that was written some seconds ago."""
    return NodeFile(status, member, NOW_NS - int(age_s * S))


def snap(node: NodeFile, *others: NodeFile, **changes: object) -> Snapshot:
    """Return a snapshot with this node and others."""
    files = {each.member.name: each for each in (node, *others)}
    return Snapshot(NOW_NS, RULES, files)._replace(**changes)


OTHERS = tuple(file(web(f"web{number}", f"10.0.0.{number}"), age_s=9000) for number in range(2, 6))
LOST = tuple(file(each.member, FAILED, age_s=20) for each in OTHERS)
BUSY = View(connection_counts={KEY: 1}, serving=frozenset([KEY]), down=frozenset())
DOWN = View(down=frozenset([KEY]), up={})
FLAP = {KEY: Flap(12.0, NOW_NS / S - 20, is_alive=True, is_damped=True)}
WEIGHT_0 = SERVER._replace(weight=0)
ALONE = {KEY: Known(SERVER, was_up=True, is_served=True)}
ALL = ALONE | {
    ("nodes", each.member.name): Known(Server(each.member.name, each.member.address, 8080, None), True, True)
    for each in OTHERS
}

# Name, snapshot, state, a part of the reason, server, seconds since, seconds until.
TABLE: list[tuple[str, Snapshot, State, str, Server | None, float | None, float | None]] = [
    ("alive", snap(file(web()), *OTHERS), State.SERVING, "alive in Serf", SERVER, 20, None),
    ("drain", snap(file(web(drain="true")), *OTHERS), State.DRAINING, "tag drain is true", WEIGHT_0, 20, None),
    ("weight 0", snap(file(web(weight="0")), *OTHERS), State.DRAINING, "tag weight is 0", WEIGHT_0, 20, None),
    ("left, busy", snap(file(web(), LEFT), *OTHERS, view=BUSY), State.DRAINING, "it left", WEIGHT_0, 20, 10),
    ("left, idle", snap(file(web(), LEFT), *OTHERS), State.GONE, "it left", None, 20, None),
    ("leaving, idle", snap(file(web(), LEAVING), *OTHERS), State.GONE, "it is leaving", None, 20, None),
    ("left long ago", snap(file(web(), LEFT, 31), *OTHERS, view=BUSY), State.GONE, "it left", None, 31, None),
    ("just failed", snap(file(web(), FAILED, 4), *OTHERS), State.GRACE, "failed in Serf a moment ago", SERVER, 4, 6),
    ("failed", snap(file(web(), FAILED, 11), *OTHERS), State.GONE, "failed in Serf", None, 11, None),
    (
        "all failed",
        snap(file(web(), FAILED), *LOST, known=ALL),
        State.HELD,
        "too many servers were lost",
        SERVER,
        20,
        3580,
    ),
    ("all failed, none was up", snap(file(web(), FAILED), *LOST), State.GONE, "it failed in Serf", None, 20, None),
    ("the last one left", snap(file(web(), LEFT), known=ALONE), State.LAST, "it left; no other", SERVER, 20, None),
    ("the last one is not up", snap(file(web(), LEFT), known=ALONE, view=DOWN), State.GONE, "left", None, 20, None),
    ("flaps", snap(file(web()), *OTHERS, flaps=FLAP, known=ALL), State.DAMPED, "failed and came back", None, 20, None),
    ("wrong port", snap(file(web(port="x")), *OTHERS), State.QUARANTINED, "tag port='x'", None, 20, None),
    ("wrong address", snap(file(web(address="x")), *OTHERS), State.QUARANTINED, "not an IP address", None, 20, None),
    ("other role", snap(file(web(role="db")), *OTHERS), State.IGNORED, "role 'db'", None, 20, None),
    ("balancer", snap(file(web(role="balancer")), *OTHERS), State.IGNORED, "it is a balancer", None, 20, None),
    (
        "this balancer",
        snap(file(web()), rules=RULES._replace(self_name="web1")),
        State.IGNORED,
        "balancer",
        None,
        20,
        None,
    ),
    (
        "outside the networks",
        snap(file(web()), rules=RULES._replace(policy=Policy(read_networks("10.9.0.0/16")))),
        State.QUARANTINED,
        "SERF_HAPROXY_NETWORKS",
        None,
        20,
        None,
    ),
    (
        "refused by HAProxy",
        snap(file(web()), *OTHERS, refused={KEY: (SERVER, "unknown keyword")}),
        State.QUARANTINED,
        "HAProxy refuses it: unknown keyword",
        None,
        20,
        None,
    ),
    (
        "refused before it changed",
        snap(file(web()), *OTHERS, refused={KEY: (SERVER._replace(port=1), "unknown keyword")}),
        State.SERVING,
        "alive in Serf",
        SERVER,
        20,
        None,
    ),
    (
        "unfit with all others",
        snap(file(web(port="x")), *LOST, unfit={KEY: Gone(SERVER, NOW_NS - 30 * S)}, known=ALL),
        State.HELD,
        "tag port='x' is not a whole number from 1 to 65535; too many servers were lost",
        SERVER,
        30,
        3570,
    ),
]


DRAINED = Order(MAINT, "", "web1", DRAIN, NOW_NS // 10**6 - 7000, "lb1", NOW_NS // 10**6 + 60_000, "alice", "disk swap")
STOPPED = DRAINED._replace(mode=STOP)


def ordered(*orders: Order) -> Orders:
    """Return the orders that have effect."""
    return list_active(merge({}, orders, NOW_NS // 10**6), NOW_NS // 10**6)


TABLE += [
    ("drained", snap(file(web()), *OTHERS, orders=ordered(DRAINED)), State.DRAINING, "disk swap", WEIGHT_0, 7, 60),
    ("stopped", snap(file(web()), *OTHERS, orders=ordered(STOPPED)), State.STOPPED, "(alice at lb1", None, 7, 60),
    (
        "stopped by a later order",
        snap(file(web()), *OTHERS, orders=ordered(DRAINED, STOPPED._replace(at_ms=NOW_NS // 10**6, until_ms=0))),
        State.STOPPED,
        "an order takes it out of service",
        None,
        0,
        None,
    ),
    (
        "drained in another service",
        snap(file(web()), *OTHERS, orders=ordered(DRAINED._replace(service="api"))),
        State.SERVING,
        "alive in Serf",
        SERVER,
        20,
        None,
    ),
    (
        "the last one is drained",
        snap(file(web()), known=ALONE, orders=ordered(DRAINED)),
        State.LAST,
        "disk swap",
        SERVER,
        7,
        None,
    ),
    (
        "the last one is stopped",
        snap(file(web()), known=ALONE, orders=ordered(STOPPED)),
        State.STOPPED,
        "",
        None,
        7,
        60,
    ),
    (
        "stopped, then forgotten",
        snap(file(web()), *OTHERS, known=ALL, orders=ordered(STOPPED), refused={KEY: (SERVER, "x")}),
        State.STOPPED,
        "disk swap",
        None,
        7,
        60,
    ),
    (
        "a balancer is stopped",
        snap(file(web(role="balancer")), *OTHERS, orders=ordered(STOPPED)),
        State.IGNORED,
        "it is a balancer",
        None,
        20,
        None,
    ),
    (
        "drained and failed",
        snap(file(web(), FAILED, 4), *OTHERS, orders=ordered(DRAINED)),
        State.GRACE,
        "",
        WEIGHT_0,
        4,
        6,
    ),
    (
        "stopped and failed",
        snap(file(web(), FAILED, 4), *OTHERS, orders=ordered(STOPPED)),
        State.STOPPED,
        "",
        None,
        7,
        60,
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_every_state_has_its_reason_and_its_times(row: tuple[object, ...]) -> None:
    """Each snapshot gives the node this state, reason, server, and these times."""
    _, snapshot, state, reason, server, since_s, until_s = row
    assert isinstance(snapshot, Snapshot)
    decision = decide(snapshot)
    entry = decision.entries[KEY]
    assert (entry.state, entry.server) == (state, server)
    assert str(reason) in entry.reason
    assert entry.since_ns is not None
    assert (NOW_NS - entry.since_ns) / S == since_s
    if state is not State.DAMPED:  # its end follows from a logarithm
        assert (None if entry.until_ns is None else (entry.until_ns - NOW_NS) / S) == until_s
    assert decision.find(state).get(KEY) == (None if state is State.SERVING else entry)
    assert [each for each in decision.servers if each.name == "web1"] == ([server] if server else [])


def test_the_table_has_every_state() -> None:
    """No state is missing in the table."""
    assert {row[2] for row in TABLE} == set(State)


def test_a_memo_changes_no_decision() -> None:
    """A decision with the memo of any earlier one is the same as without."""
    memo = Memo()
    for _, snapshot, *_ in TABLE * 2:
        assert decide(snapshot, memo) == decide(snapshot)


PLAIN = snap(file(web()), *OTHERS, view=View(down=frozenset(), up={KEY: SERVER.endpoint}), known=ALL)


def test_what_time_does_not_change_is_decided_once() -> None:
    """Where nothing is new, the last decision counts, until some minutes later or a clock is set back."""
    memo = Memo()
    first = decide(PLAIN, memo)
    busy = PLAIN._replace(at_ns=NOW_NS + 60 * S, view=PLAIN.view._replace(connection_counts={KEY: 3}))
    assert decide(busy, memo) is first
    for at_ns in (NOW_NS + 700 * S, NOW_NS + 600 * S):
        again = decide(PLAIN._replace(at_ns=at_ns), memo)
        assert again == first
        assert again is not first


@pytest.mark.parametrize("row", TABLE, ids=[str(row[0]) for row in TABLE])
@pytest.mark.parametrize("after_s", [0, 5, 15, 40, 200])
def test_what_time_changes_is_decided_anew(row: tuple[object, ...], after_s: int) -> None:
    """With a memo, each snapshot comes to the same some time later as without one."""
    snapshot = row[1]
    assert isinstance(snapshot, Snapshot)
    memo = Memo()
    decide(snapshot, memo)
    later = snapshot._replace(at_ns=NOW_NS + after_s * S)
    assert decide(later, memo) == decide(later)
    for changes in ({"files": dict(list(snapshot.files.items())[:-1])}, {"view": DOWN}, {"known": {}}):
        decide(snapshot, memo)
        assert decide(later._replace(**changes), memo) == decide(later._replace(**changes))


def test_entries_are_frozen() -> None:
    """An entry cannot be changed by its readers."""
    with pytest.raises(AttributeError):
        Entry(State.GONE, "it left").reason = "x"  # type: ignore[misc]
