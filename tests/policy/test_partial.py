"""What a few members come to by themselves is what the whole decision comes to: random clusters and changes."""

from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.judgement import Memo
from serf_haproxy.policy.orders import DRAIN, MAINT, Order, Orders
from serf_haproxy.policy.partial import Undecided, decide_some, make_basis
from serf_haproxy.policy.snapshot import Snapshot, View
from serf_haproxy.serf.events import ALIVE, FAILED, LEAVING, LEFT, make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.system.network import read_networks

S = 1_000_000_000
NOW_NS = 1_000_000 * S
NAMES = tuple(f"web{number}" for number in range(1, 7))
RULES = Rules(
    80,
    roles=("web",),
    balancer_roles=("lb",),
    self_name="lb1",
    drain_timeout_s=30,
    failed_grace_s=10,
    guard=GuardRules(0.5, 60, 3600),
    flaps=FlapRules(6, 60),
    policy=Policy(addr_networks=read_networks("10.7.0.0/16")),
    are_named=True,
)
SHOP = RULES._replace(service="shop")
FURTHER = (
    (),
    (SHOP,),
    (SHOP._replace(split=(("v1", 90), ("v2", 10))),),
    (SHOP._replace(measured_by="random"),),
    (SHOP._replace(is_sticky=True),),
)
TAGS: tuple[dict[str, str], ...] = (
    {},
    {"weight": "7"},
    {"weight": "0"},
    {"drain": "true"},
    {"port": "81"},
    {"port": "wrong"},
    {"role": "db"},
    {"role": "lb"},
    {"svc.shop": "8080"},
    {"svc.shop": "8080:w5", "port": "80"},
    {"svc.shop": "8081:v1"},
    {"svc.shop": "8081:backup", "port": "80"},
    {"svc.other": "8082"},
    {"addr": "10.7.0.5"},
    {"addr": "10.7.0.6", "svc.shop": "8080", "port": "80"},
    {"addr": "10.8.0.5"},
)
SAYINGS = st.tuples(st.sampled_from([ALIVE, ALIVE, ALIVE, FAILED, LEFT, LEAVING]), st.sampled_from(TAGS))


def make_files(said: Mapping[str, tuple[str, dict[str, str]]], at_ns: int) -> dict[str, NodeFile]:
    """Return node files for what Serf says of members."""
    return {
        name: NodeFile(status, make_member(name, f"10.0.0.{name[3:]}", {"role": "web"} | tags), at_ns)
        for name, (status, tags) in said.items()
    }


def see(decision: Decision, down: set[str]) -> View:
    """Return HAProxy's view when it runs what was decided and some nodes are down."""
    servers = {server.key: server for server in decision.servers}
    return View(
        down=frozenset(key for key in servers if key[1] in down),
        up={key: server.endpoint for key, server in servers.items() if key[1] not in down},
        known=frozenset(servers),
        idle=frozenset(key for key, server in servers.items() if server.weight == 0),
        connection_counts=dict.fromkeys(servers, 1),
    )


def advance(snapshot: Snapshot, decision: Decision, down: set[str], files: dict[str, NodeFile]) -> Snapshot:
    """Return what a pass reads some seconds after a decision."""
    return snapshot._replace(
        at_ns=snapshot.at_ns + 3 * S,
        files=files,
        flaps=decision.flaps,
        unfit=decision.unfit,
        known=decision.known,
        checks=decision.checks,
        view=see(decision, down),
    )


@given(
    said=st.dictionaries(st.sampled_from(NAMES), SAYINGS, min_size=1),
    changes=st.dictionaries(st.sampled_from(NAMES), SAYINGS, min_size=1, max_size=3),
    down=st.sets(st.sampled_from(NAMES)),
    further=st.sampled_from(FURTHER),
    drained=st.sampled_from([None, "web1"]),
)
def test_it_is_what_the_whole_decides(
    said: dict[str, tuple[str, dict[str, str]]],
    changes: dict[str, tuple[str, dict[str, str]]],
    down: set[str],
    further: tuple[Rules, ...],
    drained: str | None,
) -> None:
    """Members that change have at once the servers that the next decision about all gives them."""
    maint = {drained: (Order(MAINT, "", drained, DRAIN, 1, "lb1"),)} if drained else {}
    rules = RULES._replace(are_named=bool(further))
    snapshot = Snapshot(NOW_NS, rules, make_files(said, NOW_NS - 90 * S), further_rules=further, orders=Orders(maint))
    memo = Memo()
    decision = decide(snapshot, memo)
    snapshot = advance(snapshot, decision, down, dict(snapshot.files))
    decision = decide(snapshot, memo)
    changed = make_files(changes, snapshot.at_ns)
    try:
        servers = decide_some(changed, make_basis(snapshot, decision, memo))
    except Undecided:
        assume(False)
    later = decide(advance(snapshot, decision, down, {**snapshot.files, **changed}), memo)
    before = {server.key: server for server in decision.servers}
    after = {server.key: server for server in later.servers}
    hastened = {server.key: server for server in servers}
    for key in before.keys() | after.keys() | hastened.keys():
        if key[1] not in changes:
            continue
        if key in after:
            assert hastened.get(key, before.get(key)) == after[key]
        else:  # the whole decides when a server goes
            assert hastened.get(key, before.get(key)).weight == 0


ALONE = {name: (ALIVE, {}) for name in NAMES[:4]}


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("web5", (ALIVE, {}), 1),
        ("web4", (LEFT, {}), 1),
        ("web4", (LEAVING, {}), 1),
        ("web4", (ALIVE, {"drain": "true"}), 1),
        ("web4", (ALIVE, {"weight": "7"}), 1),
        ("web4", (ALIVE, {"color": "red"}), 0),
        ("web5", (ALIVE, {"role": "db"}), 0),
        ("web4", (FAILED, {}), None),
        ("web4", (ALIVE, {"role": "db"}), None),
        ("web4", (ALIVE, {"port": "81"}), None),
        ("web4", (ALIVE, {"addr": "10.7.0.5"}), None),
        ("web5", (ALIVE, {"addr": "10.7.0.5"}), 1),
        ("web5", (ALIVE, {"addr": "10.8.0.5"}), 0),
        ("web4", (ALIVE, {"role": "lb"}), None),
        ("lb1", (ALIVE, {}), None),
    ],
)
def test_common_changes_need_no_decision_about_all(
    name: str, change: tuple[str, dict[str, str]], expected: int | None
) -> None:
    """A join, a leave, a drain and another weight are decided by the member alone; losses and moves are not."""
    memo = Memo()
    rules = RULES._replace(are_named=False)
    snapshot = Snapshot(NOW_NS, rules, make_files(ALONE, NOW_NS - 90 * S))
    decision = decide(snapshot, memo)
    snapshot = advance(snapshot, decision, set(), dict(snapshot.files))
    decision = decide(snapshot, memo)
    basis = make_basis(snapshot, decision, memo)
    changed = (
        make_files({name: change}, snapshot.at_ns)
        if name != "lb1"
        else {name: NodeFile(ALIVE, make_member(name, "10.0.0.9", {"role": "web"}), snapshot.at_ns)}
    )
    if expected is None:
        with pytest.raises(Undecided):
            decide_some(changed, basis)
    else:
        assert len(decide_some(changed, basis)) == expected


@pytest.mark.parametrize("way", [(LEFT, {}), (ALIVE, {"drain": "true"})])
def test_the_last_servers_are_not_taken_away(way: tuple[str, dict[str, str]]) -> None:
    """Where all other servers are down, or were drained a moment ago, the whole decides."""
    memo = Memo()
    snapshot = Snapshot(NOW_NS, RULES._replace(are_named=False), make_files(ALONE, NOW_NS - 90 * S))
    decision = decide(snapshot, memo)
    others = set(NAMES[1:4])
    for down, touched in ((others, set()), (set(), {(DEFAULT_SERVICE, name) for name in others})):
        seen = advance(snapshot, decision, down, dict(snapshot.files))
        basis = make_basis(seen, decide(seen, memo), memo)._replace(touched=touched)
        with pytest.raises(Undecided):
            decide_some(make_files({"web1": way}, seen.at_ns), basis)
