"""The decision which members become servers, and the roster's corrections: tables and properties."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions import Context, build, read_servers
from serf_haproxy.policy.address import read_address
from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.damping import Flap, FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Secret, make_proof
from serf_haproxy.policy.server import Server, read_running
from serf_haproxy.serf.events import ALIVE, FAILED, LEAVING, LEFT, STATUSES, Member, make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.roster import Corrections, Roster, correct
from serf_haproxy.system.network import read_networks, read_ports

RULES = Rules(default_port=3000, balancer_roles=("lb",))
ASKED_NS = 1000
OLDER_NS, NEWER_NS = ASKED_NS - 1, ASKED_NS + 1

Evidence = dict[str, NodeFile]
Told = dict[str, tuple[str, Member]]


def web(name: str, address: str = "127.0.1.1", **tags: str) -> Member:
    """Return a member with these tags."""
    return make_member(name, address, tags)


def heard(*members: Member, status: str = ALIVE, at_ns: int = OLDER_NS) -> Evidence:
    """Return node files of these members."""
    return {member.name: NodeFile(status, member, at_ns) for member in members}


def told(*members: Member, status: str = ALIVE) -> Told:
    """Return these members in the form of a roster."""
    return {member.name: (status, member) for member in members}


def roster_of(members: Told, self_name: str = "lb") -> Roster:
    """Return a roster requested at ASKED_NS."""
    return Roster(ASKED_NS, self_name, members)


def apply(evidence: Mapping[str, NodeFile], corrections: Corrections, at_ns: int = NEWER_NS) -> Evidence:
    """Return the node files after these corrections."""
    kept = {name: file for name, file in evidence.items() if name not in corrections.absent}
    return kept | {member.name: NodeFile(status, member, at_ns) for status, member in corrections.record}


@pytest.mark.parametrize(
    ("member", "server"),
    [
        (web("web1"), Server("web1", "127.0.1.1", 3000, None)),
        (web("web1", port="8080"), Server("web1", "127.0.1.1", 8080, None)),
        (web("web1", port="1"), Server("web1", "127.0.1.1", 1, None)),
        (web("web1", port="65535"), Server("web1", "127.0.1.1", 65535, None)),
        (web("web1", weight="0"), Server("web1", "127.0.1.1", 3000, 0)),
        (web("web1", weight="256"), Server("web1", "127.0.1.1", 3000, 256)),
        (web("web1", "10.1.2.3", other="x", role="web"), Server("web1", "10.1.2.3", 3000, None)),
        (web("web1", "2001:DB8::0:1"), Server("web1", "2001:db8::1", 3000, None)),
        (web("web1", "::ffff:10.1.2.3"), Server("web1", "10.1.2.3", 3000, None)),
    ],
)
def test_member_becomes_a_server(member: Member, server: Server) -> None:
    """An alive member becomes a server with its normalized address, its port and its weight."""
    assert build(heard(member), RULES)[:2] == ((server,), {})


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [("10.1.2.3", "10.1.2.3:3000"), ("2001:db8::1", "[2001:db8::1]:3000"), ("::ffff:10.1.2.3", "10.1.2.3:3000")],
)
def test_endpoint_is_in_haproxys_notation(address: str, endpoint: str) -> None:
    """An IPv6 address is in brackets before its port."""
    assert build(heard(web("web1", address)), RULES).servers[0].endpoint == endpoint


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (web("web1", ""), "address '' is not an IP address"),
        (web("web1", "localhost"), "address 'localhost' is not an IP address"),
        (web("web1", "127.0.0.1:80"), "address '127.0.0.1:80' is not an IP address"),
        (web("web1", "127.0.0.1 weight 256"), "is not an IP address"),
        (web("web1", "127.0.0.1\nserver x 6.6.6.6:80"), "is not an IP address"),
        (web("web1", "010.1.2.3"), "is not an IP address"),
        (web("web1", "\u0661.1.1.1"), "is not an IP address"),
        (web("web1", "x" * 1000), f"address '{'x' * 40}...' is not an IP address"),
        (web("web1", "fe80::1%eth0"), "has a zone"),
        (web("web1", "fe80::1%a b"), "has a zone"),
        (web("web1", "0.0.0.0"), "is not the address of one host"),
        (web("web1", "::"), "is not the address of one host"),
        (web("web1", "::ffff:0.0.0.0"), "is not the address of one host"),
        (web("web1", "224.0.0.1"), "is not the address of one host"),
        (web("web1", "ff02::1"), "is not the address of one host"),
        (web("web1", port="0"), "tag port='0' is not a whole number from 1 to 65535"),
        (web("web1", port="65536"), "tag port='65536' is not a whole number from 1 to 65535"),
        (web("web1", port=""), "tag port='' is not a whole number"),
        (web("web1", port="-1"), "tag port='-1' is not a whole number"),
        (web("web1", port="+80"), "tag port='+80' is not a whole number"),
        (web("web1", port="80.0"), "tag port='80.0' is not a whole number"),
        (web("web1", port="8 0"), "tag port='8 0' is not a whole number"),
        (web("web1", port="80\nserver x 6.6.6.6:80"), "is not a whole number"),
        (web("web1", port="\u0668\u0660"), "is not a whole number"),
        (web("web1", port="000080"), "is not a whole number"),
        (web("web1", port="9" * 5000), f"tag port='{'9' * 40}...' is not a whole number"),
        (web("web1", weight="257"), "tag weight='257' is not a whole number from 0 to 256"),
        (web("web1", weight="1e2"), "tag weight='1e2' is not a whole number from 0 to 256"),
        (web("web1", weight="50%"), "tag weight='50%' is not a whole number from 0 to 256"),
    ],
)
def test_malformed_member_is_quarantined_alone(member: Member, reason: str) -> None:
    """An invalid address or tag quarantines this member with a printable reason, and no other."""
    pool = build(heard(web("web0"), member, web("web2")), RULES)
    assert [server.name for server in pool.servers] == ["web0", "web2"]
    assert list(pool.quarantined) == ["web1"]
    assert reason in pool.quarantined["web1"]
    assert pool.quarantined["web1"].isascii()
    assert pool.quarantined["web1"].isprintable()


@pytest.mark.parametrize("status", [LEAVING, LEFT, FAILED])
def test_only_alive_members_serve(status: str) -> None:
    """A member that is leaving, left or failed is no server and is not quarantined, even if malformed."""
    assert build(heard(web("web1"), web("web2", port="x"), status=status), RULES)[:2] == ((), {})


@pytest.mark.parametrize(
    ("rules", "admitted"),
    [
        (Rules(3000), ["api1", "bare", "lb1", "web1"]),
        (Rules(3000, balancer_roles=("lb",)), ["api1", "bare", "web1"]),
        (Rules(3000, balancer_roles=("lb", "api")), ["bare", "web1"]),
        (Rules(3000, roles=("web",)), ["web1"]),
        (Rules(3000, roles=("web", "api")), ["api1", "web1"]),
        (Rules(3000, roles=("web", "lb"), balancer_roles=("lb",)), ["web1"]),
        (Rules(3000, roles=("none",)), []),
        (Rules(3000, self_name="web1"), ["api1", "bare", "lb1"]),
        (Rules(3000, roles=("web",), self_name="web1"), []),
    ],
)
def test_rules_choose_the_members(rules: Rules, admitted: list[str]) -> None:
    """Only members with an allowed role serve; balancers and the own node never do."""
    evidence = heard(web("web1", role="web"), web("api1", role="api"), web("lb1", role="lb"), web("bare"))
    pool = build(evidence, rules)
    assert [server.name for server in pool.servers] == admitted
    assert pool.quarantined == {}


def test_members_outside_the_rules_are_not_quarantined() -> None:
    """A balancer with a malformed tag is not quarantined."""
    assert build(heard(web("lb1", role="lb", port="x")), RULES)[:2] == ((), {})


def test_servers_are_sorted() -> None:
    """Servers are sorted by name, whatever the order of the evidence."""
    names = ["web10", "Web", "web1", "a"]
    assert [server.name for server in build(heard(*map(web, names)), RULES).servers] == ["Web", "a", "web1", "web10"]


@given(st.text() | st.ip_addresses().map(str) | st.from_regex(r"[0-9a-f.:%]{0,20}", fullmatch=True))
def test_address_is_an_address_or_refused(text: str) -> None:
    """An accepted address has only hexadecimal digits, dots and colons."""
    try:
        address = read_address(text).text
    except ValueError:
        return
    assert set(address) <= set("0123456789abcdef.:")
    assert read_address(address).text == address


WEB1, WEB2 = web("web1"), web("web2")
MOVED = web("web1", "127.0.1.9")


@pytest.mark.parametrize(
    ("evidence", "members", "expected"),
    [
        pytest.param({}, {}, Corrections((), ()), id="no file, no member"),
        pytest.param({}, told(WEB1), Corrections(((ALIVE, WEB1),), ()), id="missed join"),
        pytest.param({}, told(WEB1, status=LEFT), Corrections(((LEFT, WEB1),), ()), id="missed join and leave"),
        pytest.param(heard(WEB1), told(WEB1), Corrections((), ()), id="both agree"),
        pytest.param(heard(WEB1), told(MOVED), Corrections(((ALIVE, MOVED),), ()), id="missed new address"),
        pytest.param(heard(MOVED, at_ns=NEWER_NS), told(WEB1), Corrections((), ()), id="newer event of a new address"),
        pytest.param(heard(MOVED, at_ns=ASKED_NS), told(WEB1), Corrections((), ()), id="event of the same moment"),
        pytest.param(heard(WEB1), told(WEB1, status=FAILED), Corrections(((FAILED, WEB1),), ()), id="missed failure"),
        pytest.param(heard(WEB1, status=FAILED), told(WEB1), Corrections(((ALIVE, WEB1),), ()), id="missed return"),
        pytest.param(heard(WEB1, status=FAILED, at_ns=NEWER_NS), told(WEB1), Corrections((), ()), id="newer failure"),
        pytest.param(heard(WEB1, WEB2), told(WEB1), Corrections(((FAILED, WEB2),), ()), id="absent has failed"),
        pytest.param(
            heard(WEB1) | heard(WEB2, at_ns=NEWER_NS), told(WEB1), Corrections((), ()), id="newer than the absence"
        ),
        pytest.param(heard(WEB1, status=LEFT), {}, Corrections((), ("web1",)), id="absent after its leave"),
        pytest.param(heard(WEB1, status=LEAVING), {}, Corrections((), ("web1",)), id="absent while it leaves"),
        pytest.param(heard(WEB1, status=FAILED), {}, Corrections((), ("web1",)), id="absent after its failure"),
        pytest.param(
            heard(WEB1, WEB2),
            {},
            Corrections(((FAILED, WEB1), (FAILED, WEB2)), ()),
            id="the Serf agent knows no member",
        ),
        pytest.param(
            heard(WEB1), told(WEB2), Corrections(((ALIVE, WEB2), (FAILED, WEB1)), ()), id="another one instead"
        ),
        pytest.param(
            heard(web("v", v="1,port=2")),
            told(make_member("v", "127.0.1.1", {"v": "1", "port": "2"})),
            Corrections(((ALIVE, make_member("v", "127.0.1.1", {"v": "1", "port": "2"})),), ()),
            id="tags are compared exactly",
        ),
    ],
)
def test_newer_evidence_wins(evidence: Evidence, members: Told, expected: Corrections) -> None:
    """For each node the newer of file and roster is used; a member missing in the roster counts as failed."""
    assert show(correct(evidence, roster_of(members))) == show(expected)


def show(corrections: Corrections) -> tuple[object, ...]:
    """Return corrections in a comparable form."""
    record = [(status, member.name, member.address, member.role, member.tags) for status, member in corrections.record]
    return record, corrections.absent


NAMES = st.sampled_from(["a", "b", "c", "lb"])
MEMBERS = st.builds(
    web,
    NAMES,
    st.sampled_from(["127.0.1.1", "127.0.1.2", "nowhere"]),
    role=st.sampled_from(["web", "lb"]),
    port=st.sampled_from(["80", "81", "x"]),
)
FILES = st.builds(NodeFile, st.sampled_from(STATUSES), MEMBERS, st.sampled_from([OLDER_NS, ASKED_NS, NEWER_NS]))
EVIDENCE = st.lists(FILES).map(lambda files: {file.member.name: file for file in files})
TOLD = st.lists(st.tuples(st.sampled_from(STATUSES), MEMBERS)).map(
    lambda pairs: {member.name: (status, member) for status, member in pairs}
)


@given(EVIDENCE, TOLD)
def test_corrections_are_made_once(evidence: Evidence, members: Told) -> None:
    """After its corrections, a roster has nothing left to correct."""
    roster = roster_of(members)
    corrections = correct(evidence, roster)
    assert show(correct(apply(evidence, corrections), roster)) == ([], ())


@given(EVIDENCE, TOLD)
def test_newer_files_are_never_touched(evidence: Evidence, members: Told) -> None:
    """A roster neither rewrites nor removes node files newer than its request."""
    corrections = correct(evidence, roster_of(members))
    touched = {member.name for _, member in corrections.record} | set(corrections.absent)
    assert not touched & {name for name, file in evidence.items() if file.mtime_ns >= ASKED_NS}


S = 1_000_000_000
NOW_NS = 1_000_000 * S
GUARDED = RULES._replace(failed_grace_s=10, drain_timeout_s=30, guard=GuardRules(0.5, 60, 3600))


def ago(age_s: float, *members: Member, status: str = FAILED) -> Evidence:
    """Return node files written this many seconds ago."""
    return heard(*members, status=status, at_ns=NOW_NS - int(age_s * S))


def names(evidence: Evidence, rules: Rules = GUARDED, **context: object) -> tuple[list[str], list[str]]:
    """Return the names of all servers and of the held ones; unless said otherwise all have been up."""
    context.setdefault("known", read_servers(evidence, rules))
    pool = build(evidence, rules, NOW_NS, Context(**context))
    return [server.name for server in pool.servers], list(pool.held)


WEB3, WEB4 = web("web3", "127.0.1.3"), web("web4", "127.0.1.4")
WEB2B = web("web2", "127.0.1.2")


def test_a_failed_server_is_removed_after_its_grace() -> None:
    """One failed server of three stays for the grace and no longer."""
    others = heard(WEB3, WEB4)
    assert names(others | ago(9, WEB1)) == (["web1", "web3", "web4"], [])
    assert names(others | ago(11, WEB1)) == (["web3", "web4"], [])


def test_many_servers_that_fail_together_are_held() -> None:
    """Two failed servers of three stay after their grace, until the guard's time limit."""
    evidence = heard(WEB3) | ago(11, WEB1) | ago(40, WEB2B)
    assert names(evidence) == (["web1", "web2", "web3"], ["web1", "web2"])
    context = Context(known=read_servers(evidence, GUARDED))
    assert build(evidence, GUARDED, NOW_NS, context).changes_in_s == 3560
    assert names(heard(WEB3) | ago(4000, WEB1, WEB2B)) == (["web3"], [])


@pytest.mark.parametrize(
    ("is_sticky", "context", "age_s", "drains"),
    [
        (False, Context({"web1": 1}, serving=frozenset(["web1"])), 10, True),
        (False, Context({"web1": 0}, serving=frozenset(["web1"])), 10, False),
        (True, Context({"web1": 0}, serving=frozenset(["web1"])), 10, True),
        (True, Context({"web1": 0}), 10, False),
        (True, Context({"web1": 1}), 10, True),
        (True, Context({"web1": 1}, serving=frozenset(["web1"])), 31, False),
        (True, Context(), 10, False),
    ],
    ids=["connected", "idle", "sticky", "sticky and down", "busy and down", "too long", "never served"],
)
def test_a_server_that_left_stays_for_its_clients(is_sticky: bool, context: Context, age_s: int, drains: bool) -> None:
    """Connections keep a server until they end, sticky clients keep it for the whole drain unless it is down."""
    rules = RULES._replace(drain_timeout_s=30, is_sticky=is_sticky)
    built = build(heard(WEB1, status=LEFT, at_ns=0), rules, int(age_s * 1e9), context)
    assert [(server.name, server.weight) for server in built.servers] == ([("web1", 0)] if drains else [])
    assert built.changes_in_s == (30 - age_s if drains else None)


def test_leaving_together_is_believed() -> None:
    """Servers that left gracefully are removed, however many, while another is up or when HAProxy sees them down."""
    assert names(ago(1, WEB1, WEB2B, WEB3, status=LEFT), up=frozenset()) == ([], [])
    assert names(ago(1, WEB1, WEB2B, status=LEFT) | ago(15, WEB3) | heard(WEB4)) == (["web4"], [])


def test_a_failed_server_whose_endpoint_is_taken_is_removed_at_once() -> None:
    """Neither grace nor guard keeps a failed server at an endpoint that an alive member has; only the last resort."""
    heir = web("heir", WEB1.address)
    assert names(heard(heir) | ago(1, WEB1)) == (["heir"], [])
    other = web("db", WEB1.address, role="db", port="3000")
    rules = GUARDED._replace(roles=("web",))
    web1 = web("web1", role="web")
    assert names(heard(other) | ago(11, web1), rules, up=frozenset()) == ([], [])
    assert names(heard(other) | ago(11, web1), rules) == (["web1"], [])
    assert names(heard(web("db", WEB1.address, role="db")) | ago(11, web1), rules) == (["web1"], ["web1"])


def test_quarantined_servers_are_held_as_they_were() -> None:
    """When a wrong tag would remove all servers, they stay as in the published configuration."""
    known = {
        "web1": read_running(("nodes", "web1"), "127.0.1.1:8080", 5),
        "web2": read_running(("nodes", "web2"), "127.0.1.2:80", 1),
    }
    bad = ago(1, web("web1", port="x"), web("web2", port="y"), status=ALIVE)
    pool = build(bad, GUARDED, NOW_NS, Context(known=known))
    assert pool.servers == (Server("web1", "127.0.1.1", 8080, 5), Server("web2", "127.0.1.2", 80, None))
    assert list(pool.held) == list(pool.quarantined) == ["web1", "web2"]
    others = {"web3": Server("web3", "127.0.1.3", 3000, None), "web4": Server("web4", "127.0.1.4", 3000, None)}
    assert names(bad | heard(WEB3, WEB4), known=known | others) == (["web3", "web4"], [])
    assert names(bad) == ([], [])


HOUR_S = 3600.0
TEN = [web(f"web{number}", f"10.0.0.{number + 1}", role="web", port="3000") for number in range(10)]
PUBLISHED = {member.name: Server(member.name, member.address, 3000, None) for member in TEN}
MISTAKES = {
    "a secret that no node has": {"policy": Policy(secrets=(Secret(b"correct horse battery staple"),))},
    "a role that no node has": {"roles": ("webb",)},
}


@pytest.mark.parametrize("rules", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("ages_s", [[5.0] * 10, [HOUR_S * number for number in range(10)], [240 * HOUR_S] * 10])
def test_a_mistake_in_the_settings_removes_no_server(rules: dict[str, object], ages_s: list[float]) -> None:
    """When a setting makes all members unfit at once, they are held, whenever they joined."""
    evidence: Evidence = {}
    for member, age_s in zip(TEN, ages_s, strict=True):
        evidence |= ago(age_s, member, status=ALIVE)
    assert names(evidence) == (list(PUBLISHED), [])
    pool = build(evidence, GUARDED._replace(**rules), NOW_NS, Context(known=PUBLISHED))
    assert pool.servers == tuple(PUBLISHED.values())
    assert list(pool.held) == list(pool.quarantined) == list(PUBLISHED)
    assert set(pool.held.values()) == {3600.0}
    later_ns = NOW_NS + 3599 * S
    later = build(evidence, GUARDED._replace(**rules), later_ns, Context(known=PUBLISHED, unfit=pool.unfit))
    assert set(later.held.values()) == {1.0}
    assert build(evidence, GUARDED._replace(**rules), later_ns + 2 * S, Context(unfit=pool.unfit)).servers == ()
    mended = build(evidence, GUARDED, later_ns, Context(known=PUBLISHED, unfit=pool.unfit))
    assert (mended.servers, mended.unfit) == (pool.servers, {})


def roll_out(tags: dict[str, str], gap_s: float, rules: Rules) -> list[int]:
    """Change the tags of ten members one after another; return the number of servers after each change."""
    evidence, context = ago(240 * HOUR_S, *TEN, status=ALIVE), Context(known=PUBLISHED)
    counts = []
    for number, member in enumerate(TEN):
        now_ns = NOW_NS + int(number * gap_s * S)
        evidence[member.name] = NodeFile(ALIVE, make_member(member.name, member.address, tags), now_ns)
        pool = build(evidence, rules, now_ns, context)
        context = Context(known=pool.known, unfit=pool.unfit)
        counts.append(len(pool.servers))
    return counts


WEB_ONLY = GUARDED._replace(roles=("web",))


@pytest.mark.parametrize("tags", [{"role": "webb"}, {"role": "web", "port": "x"}])
def test_a_wrong_rollout_restores_removed_servers(tags: dict[str, str]) -> None:
    """A rollout that makes nodes unfit one by one removes half of them; then all are restored and held."""
    assert roll_out(tags, 5, WEB_ONLY) == [9, 8, 7, 6, 5, 10, 10, 10, 10, 10]
    assert roll_out(tags, 3601, WEB_ONLY) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 1]


def test_a_new_balancer_is_believed() -> None:
    """A node that takes the balancer's role is removed at once unless it is the last one, and so is the own node."""
    balancer = ago(5, web("web1", role="lb"), status=ALIVE)
    assert names(balancer | ago(5, *TEN[2:4], status=ALIVE), known=PUBLISHED) == (["web2", "web3"], [])
    known = {"web1": PUBLISHED["web1"]}
    assert names(balancer, known=known) == (["web1"], ["web1"])
    assert names(balancer, known=known, up=frozenset(), never_up=frozenset(["web1"])) == ([], [])
    assert names(ago(5, TEN[1], status=ALIVE), GUARDED._replace(self_name="web1"), known=known) == ([], [])


def test_a_held_unfit_server_stays_held_when_it_fails() -> None:
    """Servers held because they are unfit stay held when they also fail in the gossip."""
    evidence = ago(240 * HOUR_S, *TEN, status=ALIVE)
    rules = GUARDED._replace(roles=("webb",))
    unfit = build(evidence, rules, NOW_NS, Context(known=PUBLISHED)).unfit
    lost = {name: NodeFile(FAILED, file.member, NOW_NS + 9 * S) for name, file in evidence.items()}
    pool = build(lost, rules, NOW_NS + 10 * S, Context(known=PUBLISHED, unfit=unfit))
    assert set(pool.held.values()) == {3590.0}
    assert pool.quarantined == {}
    assert set(build(lost, rules, NOW_NS + 10 * S, Context(known=PUBLISHED)).held.values()) == {3599.0}
    context = Context(known=PUBLISHED, unfit=unfit, up=frozenset())
    assert build(ago(5, *TEN, status=LEFT), rules, NOW_NS, context).servers == ()


def test_members_of_other_roles_were_never_servers() -> None:
    """Members that were never published are not held, nor are servers whose endpoint another member has."""
    evidence = ago(5, *TEN, status=ALIVE)
    rules = GUARDED._replace(roles=("db",))
    assert build(evidence, rules, NOW_NS).unfit == {}
    assert build(evidence, rules, NOW_NS)[:2] == ((), {})
    heir = heard(web("heir", TEN[0].address, role="db"))
    pool = build(evidence | heir, rules, NOW_NS, Context(known=PUBLISHED))
    assert [server.name for server in pool.servers] == ["heir", *list(PUBLISHED)[1:]]


def test_no_server_is_where_a_balancer_listens() -> None:
    """A member at an endpoint of a known balancer is quarantined; at another port or address it serves."""
    rules = RULES._replace(self_name="lb1", binds=(("", 80), ("", 1936)))
    balancers = heard(web("lb1", "10.0.0.1"), web("lb2", "10.0.0.2", role="lb"))
    loops = [web(f"loop{port}-{host}", f"10.0.0.{host}", port=str(port)) for port in (80, 1936) for host in (1, 2)]
    local, beside = web("local", "127.0.0.1"), [web("near", "10.0.0.1", port="81"), web("far", "10.0.0.3", port="80")]
    pool = build(balancers | heard(local, *loops, *beside), rules)
    assert [server.name for server in pool.servers] == ["far", "near"]
    assert sorted(pool.quarantined) == ["local", *sorted(member.name for member in loops)]
    gone = heard(web("lb1", "10.0.0.1"), web("lb2", "10.0.0.2", role="lb"), status=LEFT)
    assert build(gone | heard(local, *loops), rules).quarantined == {}
    everyone = {name: Server(name, "127.0.0.1", 80, None) for name in ("a", "b")}
    local_ones = heard(*(web(name, "127.0.0.1", port="80") for name in everyone))
    assert build(balancers | local_ones, rules._replace(guard=GUARDED.guard), 2, Context(known=everyone)).servers == ()


def test_a_damped_node_does_not_serve() -> None:
    """A flapping node is no server while enough others serve."""
    rules = GUARDED._replace(flaps=FlapRules(4, 60))
    flaps = {"web1": Flap(5.0, NOW_NS / 1e9, True, True)}
    evidence = heard(WEB1, WEB2B)
    pool = build(evidence, rules, NOW_NS, Context(flaps=flaps, known=read_servers(evidence, rules)))
    assert [server.name for server in pool.servers] == ["web2"]
    assert list(pool.damped) == ["web1"]
    assert pool.changes_in_s == pool.damped["web1"]
    assert names(heard(WEB1), rules, flaps=flaps) == (["web1"], [])


def test_a_damped_node_serves_when_all_others_are_down() -> None:
    """While all other servers are down in HAProxy, no node is damped, and the next look is soon."""
    rules = GUARDED._replace(flaps=FlapRules(4, 60))
    flaps = {"web1": Flap(5.0, NOW_NS / 1e9, True, True)}
    evidence = heard(WEB1, WEB2B, WEB3)
    for down, is_kept_out in ((set(), True), ({"web1", "web3"}, True), ({"web2", "web3"}, False)):
        known = read_servers(evidence, rules)
        pool = build(evidence, rules, NOW_NS, Context(flaps=flaps, known=known, down=frozenset(down)))
        assert ("web1" in pool.damped) is is_kept_out
        assert ("web1" not in {server.name for server in pool.servers}) is is_kept_out
        assert pool.changes_in_s == (2.0 if is_kept_out else None)


@given(EVIDENCE, st.integers(0, 4))
def test_failures_alone_never_empty_a_guarded_pool(evidence: Evidence, served: int) -> None:
    """When servers only failed and none left, at least one server remains."""
    evidence = {
        name: NodeFile(status, file.member, NOW_NS - served * S)
        for name, file in evidence.items()
        if (status := FAILED if file.status == FAILED else ALIVE)
    }
    rules = GUARDED._replace(self_name="lb")
    context = Context(known=read_servers(evidence, rules))
    pool = build(evidence, rules, NOW_NS, context)
    patient = rules._replace(failed_grace_s=1e9)
    assert bool(pool.servers) == bool(build(evidence, patient, NOW_NS, context).servers)


SECRET = Secret(b"correct horse battery staple")


def prove(name: str, address: str, *tags: str) -> Member:
    """Return a member with a valid proof."""
    proof = make_proof(SECRET, name, address, dict(tag.split("=", 1) for tag in tags))
    return Member(name, address, "", tuple(sorted((*tags, f"proof={proof}"))))


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        (Policy(), []),
        (Policy(networks=read_networks("10.1.0.0/16")), ["b"]),
        (Policy(ports=read_ports("80")), ["c"]),
        (Policy(secrets=(SECRET,)), ["thief"]),
    ],
)
def test_policy_quarantines_alone(policy: Policy, refused: list[str]) -> None:
    """A member that violates the policy is quarantined with the reason, and no other."""
    members = [prove("a", "10.1.0.1", "port=80"), prove("b", "10.2.0.1", "port=80"), prove("c", "10.1.0.3", "port=81")]
    members.append(Member("thief", "10.1.0.1", "", members[0].tags))
    evidence = {member.name: NodeFile(ALIVE, member, 0) for member in members}
    pool = build(evidence, Rules(80, policy=policy))
    assert sorted(pool.quarantined) == refused
    assert [server.name for server in pool.servers] == [name for name in evidence if name not in refused]


def test_drained_node_needs_no_new_proof() -> None:
    """Weight and drain of a running node can be changed without the secret."""
    member = prove("a", "10.1.0.1", "port=80")
    member.tags = tuple(sorted((*member.tags, "drain=true", "weight=7")))
    pool = build({"a": NodeFile(ALIVE, member, 0)}, Rules(80, policy=Policy(secrets=(SECRET,))))
    assert [server.weight for server in pool.servers] == [0]


def test_a_proof_with_uncertain_tags_is_not_checked() -> None:
    """While a comma makes the tags uncertain, the proof is not checked until the roster has the exact tags."""
    member = prove("a", "10.1.0.1", "port=80")
    member.tags = ("port=22", *member.tags)
    pool = build({"a": NodeFile(ALIVE, member, 0)}, Rules(80, policy=Policy(secrets=(SECRET,))))
    assert "its tags ambiguous" in pool.quarantined["a"]


def test_policy_applies_to_published_servers() -> None:
    """A server whose address the policy no longer allows is not held; it goes when another can serve."""
    member, other = Member("a", "10.2.0.1", "", ("port=x",)), Member("b", "10.1.0.2", "", ())
    known = {"a": Server("a", "10.2.0.1", 80, None), "b": Server("b", "10.1.0.2", 80, None)}
    rules = Rules(80, failed_grace_s=60, guard=GuardRules(0.1, 60, 60, 0))
    evidence = {"a": NodeFile(ALIVE, member, 1), "b": NodeFile(ALIVE, other, 1)}
    narrow = rules._replace(policy=Policy(networks=read_networks("10.1.0.0/16")))
    for some_rules, up, names in ((rules, "ab", "ab"), (narrow, "ab", "b"), (narrow, "a", "ab"), (narrow, "", "b")):
        pool = build(evidence, some_rules, 2, Context(known=known, up=frozenset(up)))
        assert "".join(server.name for server in pool.servers) == names
        assert pool.held.keys() == ({"a"} if some_rules is rules else set())
        assert pool.last.keys() == ({"a"} if up == "a" else set())


def test_changed_rules_or_members_are_judged_anew() -> None:
    """The same members are judged anew under other rules, and so is a changed member under the same rules."""
    evidence = heard(web("a", "10.1.0.1"), web("b", "10.2.0.1"))
    narrow = Rules(80, policy=Policy(networks=read_networks("10.1.0.0/16")))
    for rules, served in ((Rules(80), "ab"), (narrow, "a"), (narrow, "a"), (Rules(80), "ab"), (Rules(81), "ab")):
        servers = build(evidence, rules).servers
        assert [(server.name, server.port) for server in servers] == [(name, rules.default_port) for name in served]
    assert build(evidence | heard(web("a", "10.1.0.2")), Rules(81)).servers[0].address == "10.1.0.2"
