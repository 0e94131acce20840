"""Which balancers share tables: those that have proved themselves, for long."""

import pytest

from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.peers import FAILED_S, LEFT_S, SETTLE_S, find_peers
from serf_haproxy.policy.proof import Secret, make_proof
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services.service import Peer

S = 10**9
NOW_NS = 1_000_000 * S
SECRET = Secret(b"correct horse battery staple")
RULES = Rules(
    3000,
    balancer_roles=("lb",),
    self_name="lb1",
    self_address="10.0.0.1",
    local=frozenset(["10.0.0.1"]),
    policy=Policy(secrets=(SECRET,)),
)
SELF = Peer("lb1", "10.0.0.1:7947", is_self=True)
ALONE = Peer("lb1", "127.0.0.1:7947", is_self=True)


def balancer(name: str = "lb2", status: str = "alive", age_s: float = 60.0, role: str = "lb", **more: str) -> NodeFile:
    """Return the node file of a balancer with a proof, unless `proof` says otherwise."""
    address, tags = more.get("address", f"10.0.0.{name[-1]}"), {"role": role}
    tags["proof"] = more.get("proof", make_proof(SECRET, name, address, tags))
    return NodeFile(status, make_member(name, address, tags), NOW_NS - int(age_s * S))


def find(*files: NodeFile, before: tuple[str, ...] = (), rules: Rules = RULES) -> tuple[list[str], float | None]:
    """Return the names of the other balancers, and when they change."""
    known = {name: f"10.0.0.{name[-1]}:7947" for name in before}
    peers = find_peers(rules, {file.member.name: file for file in files}, known, 7947, NOW_NS)
    assert peers.listed[0].is_self
    return list(peers.others), peers.changes_in_s


def test_this_balancer_is_the_first_of_them() -> None:
    """Each balancer is in the list under its node's name, at the cluster's address; sharing with none, on loopback."""
    files = {"lb2": balancer()}
    assert find_peers(RULES, files, {}, 7947, NOW_NS).listed == (SELF, Peer("lb2", "10.0.0.2:7947"))
    assert find_peers(RULES, {}, {}, 7947, NOW_NS).listed == (SELF,), "the address does not depend on others"
    assert find_peers(RULES._replace(policy=Policy()), files, {}, 7947, NOW_NS).listed == (ALONE,)
    rules = RULES._replace(self_address="fd00::1", local=frozenset(["fd00::1"]))
    assert find_peers(rules, files, {}, 7947, NOW_NS).listed[0].endpoint == "[fd00::1]:7947"


@pytest.mark.parametrize(
    "changes",
    [{"self_name": ""}, {"self_name": "a b"}, {"self_address": ""}, {"self_address": "x"}, {"local": frozenset()}],
)
def test_without_a_place_to_listen_there_are_none(changes: dict[str, object]) -> None:
    """While this balancer's name or address is unknown, or the address is none of this machine, there are no peers."""
    peers = find_peers(RULES._replace(**changes), {"lb2": balancer()}, {}, 7947, NOW_NS)  # type: ignore[arg-type]
    assert peers.listed == ()
    why = "none of this machine (NAT?)" if "local" in changes else "Serf has not said yet"
    assert peers.said.startswith("shared with no balancer, and lost by a reload: ")
    assert why in peers.said


def test_what_becomes_of_a_table_is_told() -> None:
    """The other balancers are named, and it is said where there are none."""
    assert find_peers(RULES, {"lb2": balancer()}, {}, 7947, NOW_NS).said == "shared with lb2"
    assert find_peers(RULES, {}, {}, 7947, NOW_NS).said == "kept through reloads, shared with no other balancer"


@pytest.mark.parametrize(
    "file",
    [
        balancer(proof=""),
        balancer(proof=make_proof(SECRET, "lb3", "10.0.0.2", {"role": "lb"})),
        balancer(proof=make_proof(Secret(b"another secret, long enough"), "lb2", "10.0.0.2", {"role": "lb"})),
        balancer(role="web"),
        balancer(address="10.0.0.1"),
        balancer(address="0.0.0.0"),
    ],
    ids=["no proof", "another's proof", "another secret", "no balancer", "at our address", "no address"],
)
def test_only_balancers_that_prove_themselves(file: NodeFile) -> None:
    """A member without a valid proof, one that is no balancer, and one without an address of its own are no peers."""
    assert find(file, before=("lb2",)) == ([], None)


def test_without_secrets_a_balancer_shares_with_none() -> None:
    """Where members need no proof, anyone could say that it is a balancer."""
    assert find(balancer(), before=("lb2",), rules=RULES._replace(policy=Policy())) == ([], None)


@pytest.mark.parametrize(
    ("status", "age_s", "was_peer", "is_peer", "changes_in_s"),
    [
        ("alive", SETTLE_S - 2, False, False, 2.0),
        ("alive", SETTLE_S, False, True, None),
        ("alive", 0, True, True, None),
        ("leaving", 0, True, True, None),
        ("alive", -3600, False, True, None),
        ("failed", 60, True, True, FAILED_S - 60),
        ("failed", FAILED_S, True, False, None),
        ("failed", 60, False, False, None),
        ("left", 60, True, True, LEFT_S - 60),
        ("left", LEFT_S, True, False, None),
    ],
)
def test_the_set_changes_rarely(
    status: str, age_s: float, was_peer: bool, is_peer: bool, changes_in_s: float | None
) -> None:
    """A new balancer waits some seconds; one that failed stays for hours, one that left for minutes."""
    file = balancer(status=status, age_s=age_s)
    names = ["lb2"] if is_peer else []
    assert find(file, before=("lb2",) if was_peer else ()) == (names, changes_in_s)


def test_two_names_at_one_address_are_one_peer() -> None:
    """A balancer that came back under another name takes the place of the former one."""
    former = balancer("lb2", "failed")
    again = balancer("lb3", address="10.0.0.2", age_s=SETTLE_S)
    assert find(former, again, before=("lb2",))[0] == ["lb3"]


def test_their_number_is_limited() -> None:
    """A holder of the secret can invent names, but not without end."""
    files = [balancer(f"lb{number}", address=f"10.1.0.{number}") for number in range(10, 99)]
    assert len(find(*files)[0]) == 32
