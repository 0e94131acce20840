"""Nothing that is said takes away the last servers that HAProxy sees up: the samples of the faults, as tables."""

import dataclasses

import pytest

from decisions import Context, Result, build, read_servers
from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.damping import Flap, FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Secret, make_proof
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone
from serf_haproxy.serf.events import ALIVE, FAILED, LEAVING, LEFT, make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.system.network import read_networks, read_ports

S = 1_000_000_000
NOW_NS = 1_000_000 * S
RULES = Rules(
    80,
    balancer_roles=("lb",),
    self_name="lb1",
    drain_timeout_s=30,
    failed_grace_s=10,
    guard=GuardRules(0.5, 60, 86400),
    flaps=FlapRules(4, 60),
)


@dataclasses.dataclass
class Node:
    """A node of the table: its status, for how long, its tags, and whether HAProxy sees it up."""

    status: str = ALIVE
    age_s: float = 3600
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    is_up: bool = True
    was_up: bool = True
    is_known: bool = True
    was: int | None = None
    address: str = ""


DRAINED = {"drain": "true"}


def judge(nodes: dict[str, Node], rules: Rules = RULES, **context: object) -> Result:
    """Return what is decided of these nodes, all of which were servers before unless the table says otherwise."""
    files = {}
    known = {}
    for number, (name, node) in enumerate(nodes.items(), 1):
        address = node.address or f"10.0.0.{number}"
        member = make_member(name, address, {"role": "web"} | node.tags)
        files[name] = NodeFile(node.status, member, NOW_NS - int(node.age_s * S))
        if node.is_known:
            known[name] = Server(name, address, 80, node.was)
    up = frozenset(name for name, node in nodes.items() if node.is_up)
    never_up = frozenset(name for name, node in nodes.items() if not node.was_up)
    return build(files, rules, NOW_NS, Context(**{"known": known, "up": up, "never_up": never_up} | context))


def weights(result: Result) -> dict[str, int]:
    """Return the weight of each server; 1 where it is HAProxy's default."""
    return {server.name: 1 if server.weight is None else server.weight for server in result.servers}


def test_drained_servers_do_not_stand_for_those_that_are_lost() -> None:
    """Three of six are drained and the gossip loses the other three, which are up: they are held and go on."""
    nodes = {f"web{number}": Node(tags=DRAINED, was=0) for number in (1, 2, 3)}
    nodes |= {f"web{number}": Node(FAILED, 11) for number in (4, 5, 6)}
    result = judge(nodes)
    assert list(result.held) == ["web4", "web5", "web6"]
    assert weights(result) == {"web1": 0, "web2": 0, "web3": 0, "web4": 1, "web5": 1, "web6": 1}


def test_drained_servers_serve_while_no_other_is_up() -> None:
    """When those that serve go down, drained ones get requests with their own weight, until one is up again."""
    drained = {"web1": Node(tags=DRAINED | {"weight": "7"}, was=0), "web2": Node(tags={"weight": "0"}, was=0)}
    result = judge(drained | {"web3": Node(is_up=False)})
    assert weights(result) == {"web1": 7, "web2": 1, "web3": 1}
    assert result.last == {
        "web1": "its tag drain is true; no other server is up",
        "web2": "its tag weight is 0; no other server is up",
    }
    again = judge(drained | {"web3": Node()})
    assert (weights(again), again.last) == ({"web1": 0, "web2": 0, "web3": 1}, {})
    ill = judge({name: dataclasses.replace(node, is_up=False) for name, node in drained.items()})
    assert weights(ill) == {"web1": 0, "web2": 0}


@pytest.mark.parametrize("status", [LEFT, LEAVING])
def test_all_leave_at_once_and_others_come(status: str) -> None:
    """Servers that leave go on until one that came is up; then they give way at once."""
    old = {f"old{number}": Node(status, 1) for number in range(3)}
    new = {f"new{number}": Node(age_s=0.5, is_up=False, is_known=False) for number in range(3)}
    assert weights(judge(old)) == dict.fromkeys(old, 1)
    result = judge(old | new)
    assert weights(result) == dict.fromkeys(new | old, 1)
    assert set(result.last) == set(old)
    assert result.changes_in_s is not None
    assert result.changes_in_s <= 0.25
    up = {name: Node(age_s=0.5) for name in new}
    assert weights(judge(old | new | {"new1": up["new1"]})) == dict.fromkeys(new, 1)
    finished = judge(old | up, connection_counts={"old1": 2})
    assert weights(finished) == dict.fromkeys(new, 1) | {"old1": 0}
    dead = {name: dataclasses.replace(node, is_up=False) for name, node in old.items()}
    assert weights(judge(dead | new)) == dict.fromkeys(new, 1)


def test_one_is_drained_and_the_other_leaves() -> None:
    """The living one gets the requests; the one that leaves does only if that one is down."""
    left = {"web2": Node(LEFT, 1)}
    assert weights(judge({"web1": Node(tags=DRAINED, was=0)} | left)) == {"web1": 1}
    assert weights(judge({"web1": Node(tags=DRAINED, was=0, is_up=False)} | left)) == {"web1": 0, "web2": 1}


def test_damping_leaves_no_server_that_cannot_serve() -> None:
    """A flapping node is damped only while another that gets requests is up."""
    flaps = {"web1": Flap(5.0, NOW_NS / 1e9, True, True)}
    flapping = Node(is_up=False, is_known=False)
    for other, is_damped in (
        (Node(), True),
        (Node(tags=DRAINED, was=0), False),
        (Node(tags={"weight": "0"}, was=0), False),
        (Node(is_up=False), False),
        (Node(is_up=False, was_up=False, is_known=False), False),
    ):
        assert (list(judge({"web1": flapping, "web2": other}, flaps=flaps).damped) == ["web1"]) is is_damped


def test_members_that_were_never_up_do_not_stand() -> None:
    """Invented members, alive or left, defeat no guard: five real servers that the gossip loses are held."""
    real = {f"web{number}": Node(FAILED, 11) for number in range(5)}
    for invented in (
        Node(is_up=False, was_up=False),
        Node(is_up=False, is_known=False),
        Node(LEFT, 5, is_up=False, was_up=False),
        Node(tags=DRAINED, is_up=False, was_up=False),
    ):
        result = judge(real | {f"x{number}": invented for number in range(6)})
        assert list(result.held) == list(real)


def test_servers_that_were_never_up_are_not_held() -> None:
    """Invented members that fail together are not held, and do not make others held."""
    invented = {f"x{number}": Node(FAILED, 11, is_up=False, was_up=False) for number in range(20)}
    assert judge(invented).servers == ()
    result = judge(invented | {"web1": Node(), "web2": Node(), "web3": Node(FAILED, 11)})
    assert (weights(result), result.held) == ({"web1": 1, "web2": 1}, {})


@pytest.mark.parametrize("hours", [1, 20])
def test_an_ungraceful_scale_in_does_not_switch_damping_off(hours: int) -> None:
    """While Serf still lists many nodes that failed together long ago, one that flaps is counted and damped."""
    gone = {f"gone{number}": Node(FAILED, hours * 3600, is_up=False, is_known=False) for number in range(8)}
    nodes = gone | {"web1": Node(FAILED, 0, is_up=False), "web2": Node(), "web3": Node()}
    flaps = {"web1": Flap(3.5, NOW_NS / 1e9, True, False)}
    result = judge(nodes, flaps=flaps)
    assert (result.flaps["web1"].penalty, result.flaps["web1"].is_damped) == (4.5, True)
    assert list(judge(nodes | {"web1": Node(age_s=0, is_up=False)}, flaps=result.flaps).damped) == ["web1"]


def test_nodes_that_fail_together_are_not_to_blame() -> None:
    """When most servers fail together, the gossip has failed: that is no flap of theirs."""
    nodes = {f"web{number}": Node(FAILED, 1) for number in range(3)} | {"web3": Node()}
    assert judge(nodes).flaps == {}
    assert list(judge(nodes | {"web1": Node(), "web2": Node()}).flaps) == ["web0"]


MISTAKES: dict[str, dict[str, object]] = {
    "balancer_roles": {"balancer_roles": ("lb", "web")},
    "roles": {"roles": ("webb",)},
    "networks": {"policy": Policy(networks=read_networks("10.9.0.0/16"))},
    "ports": {"policy": Policy(ports=read_ports("443"))},
    "secret": {"policy": Policy(secrets=(Secret(b"correct horse battery staple"),))},
}


@pytest.mark.parametrize("guard", [RULES.guard, GuardRules(0.5, 60, 0)], ids=["guarded", "no guard"])
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_no_mistake_in_the_settings_empties_the_pool(mistake: dict[str, object], guard: GuardRules) -> None:
    """Servers that are up go on, held or as a last resort, whatever a setting says of their members."""
    nodes = {f"web{number}": Node() for number in range(3)}
    for binds in ((), (("", 80), ("", 1936))):
        result = judge(nodes, RULES._replace(guard=guard, binds=binds, **mistake))
        assert weights(result) == dict.fromkeys(nodes, 1)
        assert sorted((*result.held, *result.last)) == sorted(nodes)
        assert (result.unfit.keys(), set(result.quarantined) - set(result.held)) == (nodes.keys(), set())
    down = judge({name: Node(is_up=False) for name in nodes}, RULES._replace(guard=GuardRules(0.5, 60, 0), **mistake))
    assert down.servers == ()


def test_a_moved_server_stays_where_it_is_up_until_another_is() -> None:
    """When all servers are told to move, one stays where it was until another is up where it should be."""
    rules, nodes = RULES._replace(default_port=81), {f"web{number}": Node() for number in range(3)}
    result = judge(nodes, rules)
    assert [server.port for server in result.servers] == [80, 81, 81]
    assert result.last == {"web0": "it moves to 10.0.0.1:81; no other server is up"}
    known = {server.name: server for server in result.servers}
    assert judge(nodes, rules, known=known, up=frozenset(["web0"])).servers == result.servers
    moved = judge(nodes, rules, known=known, up=frozenset(["web0", "web2"]))
    assert [server.port for server in moved.servers] == [81, 81, 81]
    assert [server.port for server in judge(nodes, rules, known=known, up=frozenset()).servers] == [81, 81, 81]


def test_a_forgotten_server_stays_while_no_other_is_up() -> None:
    """A server whose node file is gone, because Serf has reaped its member, goes when another is up."""
    known = {"web1": Server("web1", "10.0.0.1", 80, 7), "web2": Server("web2", "10.0.0.2", 80, None)}
    result = judge({}, known=known, up=frozenset(["web1"]))
    assert (weights(result), result.last) == ({"web1": 7}, {"web1": "Serf has forgotten it; no other server is up"})
    assert judge({}, known=known, up=frozenset()).servers == ()
    both = judge({"web2": Node(address="10.0.0.2")}, known=known, up=frozenset(["web1", "web2"]))
    assert weights(both) == {"web2": 1}


def test_release_ends_the_last_resort() -> None:
    """An operator's order takes away what is lost, but not what is drained by its own tag."""
    released = RULES._replace(guard=RULES.guard._replace(released_ns=NOW_NS))
    assert judge({"web1": Node(LEFT, 1)}, released).servers == ()
    unfit = {"web1": Gone(Server("web1", "10.0.0.1", 80, None), NOW_NS - S)}
    assert judge({"web1": Node(tags={"port": "x"})}, released, unfit=unfit).servers == ()
    assert weights(judge({"web1": Node(tags=DRAINED, was=0)}, released)) == {"web1": 1}
    assert weights(judge({"web1": Node(LEFT, 1), "web2": Node(is_up=False)}, released)) == {"web2": 1}


@pytest.mark.parametrize("lost", [LEFT, FAILED, ALIVE])
def test_a_claim_without_a_proof_takes_no_last_server_away(lost: str) -> None:
    """What a node of another role says of an address is gossip: it ends no service, nor does a new name and role."""
    other = {"db1": Node(tags={"role": "db", "port": "80"}, is_known=False, address="10.0.0.1")}
    rules = RULES._replace(roles=("web",))
    web1 = Node(lost, 11, tags=DRAINED) if lost == ALIVE else Node(lost, 11)
    kept = judge({"web1": web1}, rules)
    assert weights(kept) == {"web1": 1}
    assert judge({"web1": web1} | other, rules).servers == kept.servers


def test_a_last_server_is_none_that_a_proven_node_has() -> None:
    """A server that left is not kept where a living node of another kind proves that it is, nor the own node.

    The same secret that lets servers in says here that the requests would reach another application.
    """
    rules = RULES._replace(roles=("web",), policy=Policy(secrets=(SECRET,)))
    nodes = {"web1": Node(LEFT, 1, prove("web1", "10.0.0.1"))}
    tags = {"role": "db", "port": "80"}
    forged = {"db1": Node(tags=tags, is_known=False, address="10.0.0.1")}
    elsewhere = {"db1": Node(tags=prove("db1", "10.0.0.2", **tags), is_known=False, address="10.0.0.1")}
    proven = {"db1": Node(tags=prove("db1", "10.0.0.1", **tags), is_known=False, address="10.0.0.1")}
    for claim in (forged, elsewhere):
        assert weights(judge(nodes | claim, rules)) == {"web1": 1}
    assert judge(nodes | proven, rules).servers == ()
    assert judge({"lb1": Node(LEFT, 1)}).servers == ()


def test_without_haproxys_view_memory_decides() -> None:
    """While HAProxy does not answer, servers that it has seen up before are not given up for others."""
    nodes = {"web1": Node(LEFT, 1), "web2": Node(was_up=False)}
    assert weights(judge(nodes, up=None)) == {"web1": 1, "web2": 1}
    assert weights(judge(nodes | {"web2": Node()}, up=None)) == {"web2": 1}
    assert weights(judge(nodes | {"web1": Node(LEFT, 1, was_up=False)}, up=None)) == {"web2": 1}


SECRET = Secret(b"correct horse battery staple")


def prove(name: str, address: str, **tags: str) -> dict[str, str]:
    """Return the tags of a member with its proof."""
    tags = {"role": "web"} | tags
    return tags | {"proof": make_proof(SECRET, name, address, tags)}


def test_an_unproven_balancer_takes_no_place() -> None:
    """With secrets, a member that says it is a balancer at a server's address does not take that server out."""
    policy = Policy(read_networks("10.0.0.0/8"), read_ports("80"), (SECRET,))
    rules = RULES._replace(policy=policy, binds=(("", 80), ("", 1936)))
    real = {f"web{number}": Node(tags=prove(f"web{number}", f"10.0.0.{number}")) for number in (1, 2, 3)}
    for victims in ((2,), (1, 2, 3)):
        forged = {
            f"x{number}": Node(tags={"role": "lb"}, is_known=False, address=f"10.0.0.{number}") for number in victims
        }
        result = judge(real | forged, rules)
        assert weights(result) == dict.fromkeys(real, 1)
        copied = {
            name: dataclasses.replace(node, tags=node.tags | {"proof": prove("web1", "10.0.0.1")["proof"]})
            for name, node in forged.items()
        }
        assert weights(judge(real | copied, rules)) == dict.fromkeys(real, 1)
    proven = {"lb2": Node(tags=prove("lb2", "10.0.0.2", role="lb"), is_known=False, address="10.0.0.2")}
    assert "requests would go in a circle" in judge(real | proven, rules).quarantined["web2"]
    assert weights(judge(proven | {"lb3": Node(tags={"role": "lb"}, is_known=False)}, rules)) == {}


def test_an_unproven_claim_counts_in_no_rule() -> None:
    """With secrets, unproven members are no takers of an address, stand for nothing and cause no hold."""
    rules = RULES._replace(policy=Policy(secrets=(SECRET,)), roles=("web",))
    real = {f"web{number}": Node(FAILED, 11, prove(f"web{number}", f"10.0.0.{number}")) for number in (1, 2)}
    for tags in ({"role": "db", "port": "80"}, {"role": "web"}, {"role": "lb", "port": "80"}):
        forged = {f"x{number}": Node(tags=tags, is_known=False, address=f"10.0.0.{number}") for number in (1, 2)}
        assert list(judge(real | forged, rules).held) == ["web1", "web2"]
    serving = {f"web{number}": Node(tags=prove(f"web{number}", f"10.0.0.{number}")) for number in (1, 2)}
    failed = {f"x{number}": Node(FAILED, 11, {"role": "web"}, is_known=False, is_up=False) for number in range(9)}
    result = judge(serving | failed, rules)
    assert (weights(result), result.held) == (dict.fromkeys(serving, 1), {})


def test_what_was_served_needs_no_file() -> None:
    """A wrong tag on every node removes no server, as remembered; nothing is read from a configuration."""
    files = {
        name: NodeFile(ALIVE, make_member(name, address, {"port": "x"}), NOW_NS)
        for name, address in (("web1", "10.0.0.1"), ("web2", "10.0.0.2"))
    }
    known = {"web1": Server("web1", "10.0.0.1", 8080, 5), "web2": Server("web2", "10.0.0.2", 80, None)}
    assert read_servers(files, RULES) == {}
    for up in (None, frozenset(known)):
        assert build(files, RULES, NOW_NS, Context(known=known, up=up)).servers == tuple(known.values())
