"""The split of a service between versions: the law of its weights, and what it decides."""

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision, State
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Known, Snapshot, View
from serf_haproxy.policy.split import find_missing, weigh
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.nodes import NodeFile

WEIGHT_MAX = 256
GROUPS = st.lists(st.integers(1, WEIGHT_MAX), min_size=1, max_size=40) | st.builds(
    lambda count, weight: [weight] * count, st.integers(1, 600), st.sampled_from([1, 7, 256])
)


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    """Return the shares of versions that have servers, and the weights that these ask for."""
    count = draw(st.integers(1, 6))
    cuts = sorted(draw(st.lists(st.integers(1, 99), min_size=count, max_size=count, unique=True)))
    shares = [high - low for low, high in zip([0, *cuts], cuts, strict=False)]
    return shares, [draw(GROUPS) for _ in shares]


@given(splits())
def test_totals_have_exactly_the_ratio_of_the_shares(split: tuple[list[int], list[list[int]]]) -> None:
    """However many servers the versions have, and whatever they ask for, no share is off by anything."""
    shares, asked = split
    weights = weigh(shares, asked)
    assert all(0 <= weight <= WEIGHT_MAX for group in weights for weight in group)
    total = sum(map(sum, weights))
    assert total > 0
    for share, group in zip(shares, weights, strict=True):
        assert Fraction(sum(group), total) == Fraction(share, sum(shares))


@given(splits())
def test_within_a_version_weights_follow_what_is_asked(split: tuple[list[int], list[list[int]]]) -> None:
    """A server gets what it asks for, but for less than one unit; none is left out while there is room for it."""
    shares, asked = split
    weights = weigh(shares, asked)
    most = min(
        WEIGHT_MAX / Fraction(share * max(group), sum(group)) for share, group in zip(shares, asked, strict=True)
    )
    for share, wanted, given_ in zip(shares, asked, weights, strict=True):
        whole = sum(wanted)
        assert [len(wanted)] == [len(given_)]
        for ask, weight in zip(wanted, given_, strict=True):
            assert abs(weight - Fraction(sum(given_) * ask, whole)) < 1
            assert weight > 0 or Fraction(share * ask, whole) * (most - 1) < 1


@given(st.integers(1, 99), st.integers(1, 12), st.integers(1, 12))
def test_small_services_are_divided_exactly(share: int, one: int, other: int) -> None:
    """Where whole numbers allow it, equal servers get equal weights."""
    weights = weigh([share, 100 - share], [[1] * one, [1] * other])
    per = Fraction(share, one), Fraction(100 - share, other)
    ratio = max(per) / min(per)
    if ratio.numerator <= WEIGHT_MAX:
        assert all(len(set(group)) == 1 for group in weights)
        assert Fraction(weights[0][0], weights[1][0]) == per[0] / per[1]


def test_the_weights_of_a_canary_are_small_numbers() -> None:
    """Weights stay as small as they can be."""
    assert weigh([95, 5], [[1, 1, 1], [1]]) == [[19, 19, 19], [3]]
    assert weigh([50, 50], [[1, 1, 1], [1]]) == [[1, 1, 1], [3]]
    assert weigh([100], [[1, 5]]) == [[1, 5]]
    assert weigh([], []) == []
    weights = weigh([95, 5], [[1] * 1000, [1] * 7])
    assert max(weight for group in weights for weight in group) <= WEIGHT_MAX


S = 10**9
RULES = Rules(3000, service="api", are_named=True, guard=GuardRules(0.5, 60, 3600))
OPTIONS = ["", ":v1", ":v1:w7", ":v1:drain", ":v2", ":v2:w200", ":v2:backup", ":v3", ":v3:w0", ":v1:w256"]
SPLITS = [(), (("v1", 95), ("v2", 5)), (("v1", 100), ("v2", 0)), (("v1", 0), ("v2", 100)), (("v4", 100),)]


def decide_after(before: Decision | None, rules: Rules, members: dict[str, tuple[str, bool]]) -> Decision:
    """Return the decision after another one was applied; each member has options and is up or not."""
    files = {
        name: NodeFile("alive", make_member(name, f"10.0.0.{number}", {"svc.api": f"80{options}"}), 5 * S)
        for number, (name, (options, _)) in enumerate(members.items(), 1)
    }
    known = {
        ("api", name): Known(Server(name, f"10.0.0.{number}", 80, None, "api"), True, True)
        for number, name in enumerate(members, 1)
    }
    up = {("api", name): known["api", name].server.endpoint for name, (_, is_up) in members.items() if is_up}
    idle = {server.key for server in before.servers if server.weight == 0} & up.keys() if before else set()
    view = View(down=known.keys() - up.keys(), up=up, known=frozenset(known), idle=frozenset(idle))
    return decide(Snapshot(10 * S, rules, files, known=before.known if before else known, view=view))


@given(
    st.lists(st.tuples(st.sampled_from(OPTIONS), st.booleans()), max_size=6),
    st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(0, 5)), min_size=1, max_size=5),
)
@example(  # the last server has too small a part of its version for any weight, when the others go down
    [(":v1", False), (":v2", True), (":v2:w200", False)], [((("v1", 95), ("v2", 5)), 1), ((("v1", 100), ("v2", 0)), 1)]
)
def test_no_split_takes_the_last_servers_away(
    members: list[tuple[str, bool]], steps: list[tuple[tuple[tuple[str, int], ...], int]]
) -> None:
    """However the split changes, and servers go up and down: while a server is up, one that is up gets requests."""
    decision, named = None, {f"n{number}": member for number, member in enumerate(members)}
    for split, toggled in steps:
        if (name := f"n{toggled}") in named:
            named[name] = named[name][0], not named[name][1]
        decision = decide_after(decision, RULES._replace(split=split), named)
        up = [server for server in decision.servers if named[server.name][1]]
        assert not up or any(server.weight != 0 for server in up)
        shares = dict(split)
        for server in decision.servers:
            is_last = decision.entries[server.key].state is State.LAST
            assert is_last or not split or server.weight == 0 or shares.get(server.version)


def test_what_is_decided_of_a_split() -> None:
    """Those that are up share what their version gets; a drained one, and one without a share, get nothing."""
    members = {
        "a": (":v1", True),
        "b": (":v1:w3", True),
        "c": (":v1", False),
        "d": (":v1:drain", True),
        "e": (":v2", True),
        "f": (":v3", True),
        "g": ("", True),
        "h": (":v2:backup", True),
    }
    decision = decide_after(None, RULES._replace(split=(("v1", 80), ("v2", 20))), members)
    assert {server.name: server.weight for server in decision.servers} == {
        "a": 1,
        "b": 3,
        "c": 1,
        "d": 0,
        "e": 1,
        "f": 0,
        "g": 0,
        "h": 1,
    }
    assert decision.entries["api", "a"].server == Server("a", "10.0.0.1", 80, None, "api", version="v1")
    assert decision.entries["api", "f"].reason == (
        "its version v3 has no share, and the service's split has shares for v1 v2"
    )
    assert decision.changes_in_s == 1.25
    assert find_missing({"v1": 50, "v2": 50, "v4": 0, "v5": 0}, decision.servers) == []
    assert find_missing({"v1": 50, "v3": 30, "v5": 20}, decision.servers) == ["v3", "v5"]


def test_a_server_that_haproxy_refused_stays_out_whatever_weight_it_had() -> None:
    """What HAProxy refused had the weight of that moment's split, which is no news of the member."""
    member = make_member("a", "10.0.0.1", {"svc.api": "80:v1:w7"})
    refused = Server("a", "10.0.0.1", 80, 19, "api", version="v1")
    snapshot = Snapshot(10 * S, RULES, {"a": NodeFile("alive", member, 5 * S)}, refused={refused.key: (refused, "no")})
    assert decide(snapshot).entries["api", "a"].state is State.SERVING
    split = snapshot._replace(rules=RULES._replace(split=(("v1", 100),)))
    assert decide(split).entries["api", "a"].state is State.QUARANTINED
    moved = split._replace(refused={refused.key: (refused._replace(port=81), "no")})
    assert decide(moved).entries["api", "a"].state is State.SERVING


def test_a_version_with_backup_servers_alone_waits() -> None:
    """Backup servers get no part of a share while other servers can serve; without others, they count."""
    servers = [
        Server("n1", "10.0.0.1", 80, None, version="v1"),
        Server("n2", "10.0.0.2", 80, None, version="v2", is_backup=True),
    ]
    assert find_missing({"v1": 50, "v2": 50}, servers) == ["v2"]
    assert find_missing({"v1": 50, "v2": 50}, servers[1:]) == ["v1"]
