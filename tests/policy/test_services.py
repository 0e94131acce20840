"""Decisions about several services: each by itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.claim import read_value
from serf_haproxy.policy.damping import Flap, FlapRules
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision, State
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.judgement import Memo
from serf_haproxy.policy.proof import Offer, Secret, make_proof
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Snapshot, View
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import Key

S = 10**9
NOW_NS = 1_000_000 * S
RULES = Rules(
    3000,
    balancer_roles=("lb",),
    drain_timeout_s=30,
    guard=GuardRules(0.5, 60, 3600),
    flaps=FlapRules(6, 60),
    are_named=True,
)
SHOP, PG = RULES._replace(service="shop"), RULES._replace(service="pg")


def node(name: str, tags: str, status: str = "alive", age_s: float = 5.0) -> NodeFile:
    """Return the node file of a node; tags are words like `svc.shop=80`."""
    pairs = dict(tag.split("=", 1) for tag in tags.split())
    return NodeFile(status, make_member(name, f"10.0.0.{name[-1]}", pairs), NOW_NS - int(age_s * S))


def snap(*files: NodeFile, **more: Any) -> Snapshot:
    """Return a snapshot of node files."""
    by_name = {file.member.name: file for file in files}
    return Snapshot(NOW_NS, more.pop("rules", RULES), by_name, **({"further_rules": (SHOP, PG)} | more))


def states(decision: Decision) -> dict[Key, State]:
    """Return the state of each node in each service."""
    return {key: entry.state for key, entry in decision.entries.items()}


def remember(*snapshots: Snapshot, **more: Any) -> dict[str, Any]:
    """Return what is known after these snapshots were decided and HAProxy has seen all servers up."""
    known = {key: one._replace(was_up=True) for each in snapshots for key, one in decide(each).known.items()}
    up = {key: one.server.endpoint for key, one in known.items()}
    return {"known": known, "view": View(down=frozenset(), up=up, known=frozenset(up))} | more


def test_a_node_is_in_the_services_that_it_offers() -> None:
    """Each service has the servers of the nodes that offer it, with their own ports, weights and options."""
    decision = decide(
        snap(
            node("web1", "port=80 weight=5"),
            node("any2", "svc.shop=81:w7:v2 svc.pg=82:backup"),
            node("any3", "svc.shop=83:drain:w9 port=84"),
            node("old4", ""),
            node("lb5", "role=lb"),
        )
    )
    assert decision.servers == (
        Server("any3", "10.0.0.3", 84, None),
        Server("old4", "10.0.0.4", 3000, None),
        Server("web1", "10.0.0.1", 80, 5),
        Server("any2", "10.0.0.2", 82, None, "pg", is_backup=True),
        Server("any2", "10.0.0.2", 81, 7, "shop", version="v2"),
        Server("any3", "10.0.0.3", 83, 0, "shop"),
    )
    assert list(decision.entries) == sorted(decision.entries)
    assert decision.entries["shop", "any3"].reason == "its tag svc.shop says drain"
    assert states(decision)["nodes", "lb5"] is State.IGNORED
    assert ("nodes", "any2") not in decision.entries


def test_without_named_services_their_tags_only_show() -> None:
    """Where the operator has named no service, a tag `svc.NAME` changes no decision and is shown as unnamed."""
    rules = RULES._replace(are_named=False)
    files = node("web1", "svc.shop=81 svc.nodes=82 port=80"), node("web2", "svc.pg=1")
    decision = decide(snap(*files, rules=rules, further_rules=()))
    assert decision.servers == (Server("web1", "10.0.0.1", 80, None), Server("web2", "10.0.0.2", 3000, None))
    assert states(decision) == {
        ("nodes", "web1"): State.SERVING,
        ("nodes", "web2"): State.SERVING,
        ("pg", "web2"): State.IGNORED,
        ("shop", "web1"): State.IGNORED,
    }


def test_a_service_without_a_name_is_shown_alone() -> None:
    """A service that the operator has not named is ignored with the reason, and shown only for nodes that are alive."""
    decision = decide(snap(node("web1", "svc.evil=80 svc.shop=81"), node("web2", "svc.evil=80", "failed")))
    assert states(decision) == {("evil", "web1"): State.IGNORED, ("shop", "web1"): State.SERVING}
    assert decision.entries["evil", "web1"].reason == "the operator has named no such service"


def test_a_node_whose_services_have_no_proper_name_is_shown() -> None:
    """A node that offers nothing by a proper name serves nowhere, and its row in the default service says why."""
    decision = decide(snap(node("web1", "svc.Shop=80"), node("web2", "svc.Shop=80 port=81")))
    assert states(decision) == {("nodes", "web1"): State.IGNORED, ("nodes", "web2"): State.SERVING}
    assert decision.entries["nodes", "web1"].reason.startswith("no tag svc.NAME of it has a proper name")


def test_few_of_the_services_that_members_invent_are_shown() -> None:
    """Members that invent services fill neither the status nor the memory."""
    invented = " ".join(f"svc.x{number}=80" for number in range(30))
    nodes = {f"web{number}": node(f"web{number}", f"{invented} port=80") for number in range(200)}
    decision = decide(snap(*nodes.values()))
    assert sum(state is State.IGNORED for state in states(decision).values()) == 100
    assert len(decision.servers) == 200


def test_a_wrong_tag_costs_one_service_of_one_node() -> None:
    """A wrong value quarantines one service of one node."""
    decision = decide(snap(node("web1", "svc.shop=80:fast svc.pg=81 port=82"), node("web2", "svc.shop=80")))
    assert states(decision) == {
        ("nodes", "web1"): State.SERVING,
        ("pg", "web1"): State.SERVING,
        ("shop", "web1"): State.QUARANTINED,
        ("shop", "web2"): State.SERVING,
    }


def test_a_mass_loss_holds_its_service_alone() -> None:
    """Losses count by service: all of one are held, one of many in another is gone."""
    names = [f"web{number}" for number in range(1, 6)]
    alive = [node(name, "svc.pg=81") for name in names[1:]]
    before = snap(node("web1", "svc.shop=80 svc.pg=81"), *alive)
    after = snap(node("web1", "svc.shop=80 svc.pg=81", "failed"), *alive, **remember(before))
    assert states(decide(after)) == {
        ("shop", "web1"): State.HELD,
        ("pg", "web1"): State.GONE,
        **{("pg", name): State.SERVING for name in names[1:]},
    }


def test_a_service_has_rules_of_its_own() -> None:
    """Roles, ports, grace and guard are those of the service."""
    shop = SHOP._replace(roles=("web",), failed_grace_s=60, guard=GuardRules())
    pg = PG._replace(policy=Policy(ports=((5432, 5432),), ports_from="ports of service pg"))
    files = node("web1", "svc.shop=80 svc.pg=80 role=web", "failed"), node("web2", "svc.shop=80 svc.pg=80 role=db")
    decision = decide(snap(*files, further_rules=(shop, pg)))
    assert states(decision) == {
        ("shop", "web1"): State.GRACE,
        ("shop", "web2"): State.IGNORED,
        ("pg", "web1"): State.GONE,
        ("pg", "web2"): State.QUARANTINED,
    }
    reason = "port 80 is in none of the ranges that ports of service pg allows"
    assert decision.entries["pg", "web2"].reason == reason


def test_a_node_that_flaps_is_damped_where_others_can_serve() -> None:
    """A penalty counts in each service, and the only server of a service stays."""
    files = [node(f"web{number}", "svc.shop=80") for number in (1, 2, 3)]
    flap = Flap(12.0, NOW_NS / S - 20, is_alive=True, is_damped=True)
    alone = node("web1", "svc.shop=80 svc.pg=81")
    known = remember(snap(alone, *files[1:]))
    decision = decide(snap(alone, *files[1:], flaps={("shop", "web1"): flap, ("pg", "web1"): flap}, **known))
    assert states(decision)["shop", "web1"] is State.DAMPED
    assert states(decision)["pg", "web1"] is State.SERVING
    assert set(decision.flaps) == {("shop", "web1"), ("pg", "web1")}


def test_a_tag_that_goes_is_a_loss_in_its_service() -> None:
    """A node that offers a service no more goes at once while others serve; the last one stays until another is up."""
    files = [node(f"web{number}", "svc.shop=80 svc.pg=81") for number in (1, 2, 3)]
    known = remember(snap(*files))
    moved = node("web1", "svc.pg=81")
    decision = decide(snap(moved, *files[1:], **known))
    assert states(decision)["shop", "web1"] is State.IGNORED
    assert decision.entries["shop", "web1"].reason == "it does not offer this service any more"
    assert states(decision)["pg", "web1"] is State.SERVING
    alone = decide(snap(node("web1", "svc.pg=81"), **remember(snap(node("web1", "svc.shop=80 svc.pg=81")))))
    assert states(alone) == {("pg", "web1"): State.SERVING, ("shop", "web1"): State.HELD}


def test_a_service_that_is_named_no_more_is_forgotten() -> None:
    """What was known of a service goes with its name."""
    before = snap(node("web1", "svc.shop=80 svc.pg=81"))
    decision = decide(snap(node("web1", "svc.shop=80 svc.pg=81"), **remember(before, further_rules=(SHOP,))))
    assert set(decision.known) == {("shop", "web1")}
    assert states(decision) == {("shop", "web1"): State.SERVING, ("pg", "web1"): State.IGNORED}


SECRET, OTHER = Secret(b"1" * 32), Secret(b"2" * 32)


def prove(secret: Secret, name: str, service: str, value: str, **tags: str) -> str:
    """Return the tags of a node that proves its place in a service."""
    offer = Offer(service, f"svc.{service}", read_value("svc.x", value).signed)
    proof = make_proof(secret, name, f"10.0.0.{name[-1]}", tags, offer)
    more = "".join(f" {key}={text}" for key, text in tags.items())
    return f"svc.{service}={value} proof.{service}={proof}{more}"


@pytest.mark.parametrize(
    ("tags", "state"),
    [
        (prove(SECRET, "web1", "shop", "80"), State.SERVING),
        (prove(SECRET, "web1", "shop", "80:v2:backup"), State.SERVING),
        (prove(SECRET, "web1", "shop", "80").replace("=80", "=80:w5:drain", 1), State.DRAINING),
        (prove(SECRET, "web1", "shop", "80").replace("=80", "=81", 1), State.QUARANTINED),
        (prove(SECRET, "web1", "shop", "80").replace("=80", "=80:v2", 1), State.QUARANTINED),
        (prove(SECRET, "web1", "shop", "80").replace("=80", "=80:backup", 1), State.QUARANTINED),
        (prove(SECRET, "web1", "shop", "80") + " role=x", State.QUARANTINED),
        (prove(SECRET, "web2", "shop", "80"), State.QUARANTINED),
        (prove(OTHER, "web1", "shop", "80"), State.QUARANTINED),
        (prove(OTHER, "web1", "pg", "80").replace("pg", "shop"), State.QUARANTINED),
        (prove(SECRET, "web1", "pg", "80").replace("pg", "shop"), State.QUARANTINED),
        ("svc.shop=80", State.QUARANTINED),
        ("svc.shop=80 proof=" + make_proof(SECRET, "web1", "10.0.0.1", {}), State.QUARANTINED),
    ],
)
def test_a_member_of_one_service_cannot_appear_in_another(tags: str, state: State) -> None:
    """With a secret of its own, a service has only servers with a proof for it, by this secret, of this claim."""
    shop = SHOP._replace(policy=Policy(secrets=(SECRET,)))
    pg = PG._replace(policy=Policy(secrets=(OTHER,)))
    assert states(decide(snap(node("web1", tags), further_rules=(shop, pg))))["shop", "web1"] is state


def test_the_long_form_of_the_default_service_needs_its_own_proof() -> None:
    """A proof for the short form, which says no port, does not allow any port by the long form."""
    rules = RULES._replace(policy=Policy(secrets=(SECRET,)))
    short = "proof=" + make_proof(SECRET, "web1", "10.0.0.1", {})
    assert states(decide(snap(node("web1", short), rules=rules))) == {("nodes", "web1"): State.SERVING}
    forged = decide(snap(node("web1", f"{short} svc.nodes=22"), rules=rules))
    assert states(forged) == {("nodes", "web1"): State.QUARANTINED}
    proven = decide(snap(node("web1", prove(SECRET, "web1", "nodes", "22")), rules=rules))
    assert proven.servers == (Server("web1", "10.0.0.1", 22, None),)


TAGS = st.lists(
    st.sampled_from(
        ["svc.pg=81", "svc.pg=82:w3", "svc.pg=x", "svc.other=1", "weight=0", "weight=9", "svc.pg=81:drain"]
    ),
    max_size=3,
)
NODES = st.dictionaries(
    st.sampled_from([f"web{number}" for number in range(1, 7)]),
    st.tuples(st.sampled_from(["alive", "failed", "left", "leaving"]), st.floats(0, 100), st.booleans(), TAGS),
    max_size=6,
)


@given(NODES, NODES)
def test_no_other_service_changes_a_decision(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What is decided in a service is the same whatever its nodes offer and were in other ones, also with a memo."""
    memo = Memo()

    def list_files(nodes: dict[str, Any], is_alone: bool) -> list[NodeFile]:
        return [
            node(
                name,
                " ".join([*(["svc.shop=80"] if offers else ["x=1"]), *([] if is_alone else tags), "port=9"]),
                *rest,
            )
            for name, (*rest, offers, tags) in nodes.items()
        ]

    def decide_twice(is_alone: bool) -> Decision:
        known = remember(snap(*list_files(before, is_alone)))
        return decide(snap(*list_files(after, is_alone), **known), memo)

    alone, among = decide_twice(is_alone=True), decide_twice(is_alone=False)

    def choose(decision: Decision) -> list[Any]:
        tables: list[dict[Key, Any]] = [decision.entries, decision.unfit, dict(decision.known), dict(decision.flaps)]
        return [{key: one for key, one in table.items() if key[0] == "shop"} for table in tables]

    assert choose(among) == choose(alone)
