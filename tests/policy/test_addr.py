"""Another address than the node's own, announced by a tag `addr`: where it may lead, and what speaks for it."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_entries import ALL, ALONE, KEY, LOST, NOW_NS, OTHERS, RULES, SERVER, S, file, snap, web

from conftest import ROOT
from fuzz.checks import assert_printable
from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.claim import find_place, read_value
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.policy.proof import Offer, make_proof, read_secrets
from serf_haproxy.policy.snapshot import Gone
from serf_haproxy.serf.events import Member
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.settings import variable
from serf_haproxy.system.network import read_networks

SECRET = read_secrets("correct horse battery staple")[0]
APPS = "10.7.0.0/16,2001:db8:7::/64"
LOCAL = frozenset({"10.0.0.9", "10.7.0.9"})


def make_rules(addr_networks: str = APPS, **policy: object) -> Rules:
    """Return rules of a balancer at 10.0.0.9 and 10.7.0.9 that listens at port 80 of all addresses."""
    allowed = Policy(addr_networks=read_networks(addr_networks))._replace(**policy)
    return RULES._replace(policy=allowed, binds=(("", 80),), self_address="10.0.0.9", local=LOCAL)


def decide_one(member: Member, rules: Rules, service: str = DEFAULT_SERVICE) -> Entry:
    """Return the entry of a member among others, without a known server."""
    return decide(snap(file(member), *OTHERS, rules=rules)).entries[service, member.name]


@pytest.mark.parametrize(
    ("addr", "address"),
    [
        ("10.7.0.5", "10.7.0.5"),
        ("2001:DB8:7:0::5", "2001:db8:7::5"),
        ("::ffff:10.7.0.5", "10.7.0.5"),
        ("10.0.0.1", "10.0.0.1"),  # its own: no network is needed for that
    ],
)
def test_a_server_is_at_the_address_that_its_tag_names(addr: str, address: str) -> None:
    """The tag counts in the operator's networks for it; the node's own address is not looked at."""
    entry = decide_one(web(addr=addr), make_rules())
    assert entry.state is State.SERVING
    assert entry.server == SERVER._replace(address=address)


WRONG: list[tuple[str, Cause, str]] = [
    ("app", Cause.TAG, "tag addr='app' is not an IP address"),
    ("", Cause.TAG, "tag addr='' is not an IP address"),
    ("10.7.0.5 ", Cause.TAG, "is not an IP address"),
    ("10.7.0.%35", Cause.TAG, "is not an IP address"),
    ("10.7.0", Cause.TAG, "is not an IP address"),
    ("10.7.0.05", Cause.TAG, "is not an IP address"),
    ("10.7.0.5:80", Cause.TAG, "is not an IP address"),
    ("10.7.0.0/16", Cause.TAG, "is not an IP address"),
    ("fe80::1%eth0", Cause.TAG, "is not an IP address"),
    ("\uff11\uff10.7.0.5", Cause.TAG, "is not an IP address"),
    ("10.7.0.5\n", Cause.TAG, "is not an IP address"),
    ("0.0.0.0", Cause.TAG, "is not the address of one host"),
    ("224.0.0.1", Cause.TAG, "is not the address of one host"),
    ("ff02::1", Cause.TAG, "is not the address of one host"),
    ("127.0.0.1", Cause.ADDRESS, "is in 127.0.0.0/8, where no tag may lead"),
    ("::1", Cause.ADDRESS, "is in ::1/128, where no tag may lead"),
    ("169.254.169.254", Cause.ADDRESS, "is in 169.254.0.0/16, where no tag may lead"),
    ("fe80::1", Cause.ADDRESS, "is in fe80::/10, where no tag may lead"),
    ("255.255.255.255", Cause.ADDRESS, "where no tag may lead"),
    ("100.100.100.200", Cause.ADDRESS, "where no tag may lead"),
    ("168.63.129.16", Cause.ADDRESS, "where no tag may lead"),
    ("fd00:ec2::254", Cause.ADDRESS, "where no tag may lead"),
    ("64:ff9b::a9fe:a9fe", Cause.ADDRESS, "where no tag may lead"),
    ("2002:7f00:1::", Cause.ADDRESS, "where no tag may lead"),
    ("10.7.0.9", Cause.ADDRESS, "is on the balancer's own machine, where no tag may lead"),
    ("10.0.0.9", Cause.ADDRESS, "is on the balancer's own machine, where no tag may lead"),
    ("64:ff9b::a07:9", Cause.ADDRESS, "is on the balancer's own machine, where no tag may lead"),
    ("10.8.0.5", Cause.NETWORK, "which is in none of the networks that SERF_HAPROXY_ADDR_NETWORKS allows"),
    ("2001:db8:8::5", Cause.NETWORK, "which is in none of the networks that SERF_HAPROXY_ADDR_NETWORKS allows"),
]


@pytest.mark.parametrize(("addr", "cause", "reason"), WRONG)
@pytest.mark.parametrize("networks", ["", "0.0.0.0/0,::/0,127.0.0.0/8,169.254.0.0/16,10.0.0.0/8,100.100.100.200"])
def test_a_tag_leads_to_no_forbidden_place(addr: str, cause: Cause, reason: str, networks: str) -> None:
    """Where a tag may not lead is refused, whatever SERF_HAPROXY_NETWORKS allows, and also while all is on loopback."""
    for own in ("10.0.0.9", "", "127.0.0.1"):
        if own != "10.0.0.9" and addr == "10.0.0.9":
            continue
        rules = make_rules(networks=read_networks(networks))._replace(self_address=own)
        entry = decide_one(web(addr=addr), rules)
        assert (entry.state, entry.cause, entry.server) == (State.QUARANTINED, cause, None)
        assert reason in assert_and_return(entry.reason)


def assert_and_return(reason: str) -> str:
    """Return a reason; assert that it is printable."""
    assert_printable(reason)
    return reason


def test_special_blocks_are_refused_even_where_they_are_allowed() -> None:
    """A network of the setting that lies in a special block, or holds all, allows no such address."""
    everything = make_rules("0.0.0.0/0,::/0,127.0.0.0/8,169.254.0.0/16,fe80::/10")
    for addr in ("127.0.0.1", "169.254.169.254", "fe80::1", "10.7.0.9", "fd00:ec2::254"):
        assert decide_one(web(addr=addr), everything).cause is Cause.ADDRESS
    assert decide_one(web(addr="8.8.8.8"), everything).state is State.SERVING


def test_without_the_setting_a_tag_is_refused_and_the_remedy_named() -> None:
    """By default no network is allowed: the node is not served at its own address either, where nothing may listen."""
    entry = decide_one(web(addr="10.7.0.5"), make_rules(""))
    assert (entry.state, entry.cause) == (State.QUARANTINED, Cause.NETWORK)
    assert entry.reason == (
        "tag addr=10.7.0.5 leads to another address than the node's own, which is allowed nowhere: "
        "SERF_HAPROXY_ADDR_NETWORKS has to name its network"
    )
    assert variable("addr_networks") in entry.reason


def test_the_other_rules_count_too() -> None:
    """Networks and ports of the operator's, and listeners of other balancers, are kept from the address of a tag."""
    elsewhere = make_rules(networks=read_networks("10.0.0.0/16"))
    assert decide_one(web(addr="10.7.0.5"), elsewhere).reason.endswith("networks that SERF_HAPROXY_NETWORKS allows")
    assert decide_one(web(addr="10.7.0.5"), make_rules(ports=((80, 90),))).cause is Cause.PORT
    other = file(web("lb2", "10.7.0.2", role="balancer"))
    seen = snap(file(web(addr="10.7.0.2", port="80")), other, *OTHERS, rules=make_rules())
    assert "in a circle" in decide(seen).entries[KEY].reason


@given(st.text(max_size=20) | st.ip_addresses().map(str))
def test_any_tag_is_judged(addr: str) -> None:
    """Whatever the tag says, the server is in the allowed networks, or there is none and a printable reason."""
    entry = decide_one(web(addr=addr), make_rules())
    if entry.server is None:
        assert_printable(entry.reason)
    elif entry.server.address != "10.0.0.1":
        assert entry.server.address.startswith(("10.7.", "2001:db8:7:"))


def test_a_proof_covers_the_tag() -> None:
    """A tag that was added, changed or removed after the proof was made counts nothing; the own address is signed."""
    rules = make_rules(secrets=(SECRET,))
    tags = {"role": "web", "port": "8080", "addr": "10.7.0.5"}
    proof = make_proof(SECRET, "web1", "10.0.0.1", tags)

    def judge(address: str = "10.0.0.1", **said: str) -> Cause:
        return decide_one(web(address=address, **said), rules).cause

    assert judge(addr="10.7.0.5", proof=proof) is Cause.ALIVE
    assert judge(addr="10.7.0.6", proof=proof) is Cause.PROOF
    assert judge(proof=proof) is Cause.PROOF
    assert judge("10.0.0.2", addr="10.7.0.5", proof=proof) is Cause.PROOF
    assert judge("10.7.0.5", addr="10.7.0.5", proof=proof) is Cause.PROOF
    without = make_proof(SECRET, "web1", "10.0.0.1", {"role": "web", "port": "8080"})
    assert judge(proof=without) is Cause.ALIVE
    assert judge(addr="10.7.0.5", proof=without) is Cause.PROOF
    assert judge(addr="10.7.0.5") is Cause.PROOF


def test_a_proof_of_a_service_covers_the_tag() -> None:
    """For a tag `svc.NAME` the tag `addr` is signed as well."""
    named = make_rules(secrets=(SECRET,))._replace(are_named=True)
    rules = named._replace(service="shop")
    value = "8080:w5"
    offer = Offer("shop", "svc.shop", read_value("svc.shop", value).signed)
    proof = make_proof(SECRET, "web1", "10.0.0.1", {"role": "web", "addr": "10.7.0.5"}, offer)

    def judge(addr: str) -> Cause:
        member = web(addr=addr, **{"svc.shop": value, "proof.shop": proof})
        seen = snap(file(member), rules=named, further_rules=(rules,))
        return decide(seen).entries["shop", "web1"].cause

    assert judge("10.7.0.5") is Cause.ALIVE
    assert judge("10.7.0.6") is Cause.PROOF


@pytest.mark.parametrize("addr", ["10.7.0.5", "2001:db8:7::5", None])
def test_the_bundle_makes_the_same_proofs(addr: str | None, tmp_path: Path) -> None:
    """The bundle's shell signs what Python signs, with the tag `addr` and without it."""
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery staple\n")
    tags = {"role": "web", "port": "80", **({"addr": addr} if addr else {})}
    shop = Offer("shop", "svc.shop", "8080:v2")
    said = [f"{key}={value}" for key, value in tags.items()]
    script = ROOT / "images" / "node" / "services" / "serf" / "data" / "proof"
    argv = ["bash", str(script), str(secret), "web1", "10.0.0.1", *said, "svc.shop=8080:w5:v2:drain"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [
        f"proof={make_proof(SECRET, 'web1', '10.0.0.1', tags)}",
        f"proof.shop={make_proof(SECRET, 'web1', '10.0.0.1', tags, shop)}",
    ]


def test_no_proof_is_made_for_a_name() -> None:
    """A proof is for a literal address alone."""
    with pytest.raises(ValueError, match="allows only an IP address"):
        make_proof(SECRET, "web1", "10.0.0.1", {"addr": "app"})


def test_a_lost_server_is_not_held_where_tags_may_lead_no_longer() -> None:
    """After the operator has narrowed the setting, servers at the address of a tag go; else they are held."""
    unfit = {KEY: Gone(SERVER._replace(address="10.7.0.5"), NOW_NS - 30 * S)}
    known = ALL | {KEY: ALL[KEY]._replace(server=unfit[KEY].server)}
    broken = file(web(addr="10.7.0.5", weight="x"))
    for networks, state in ((APPS, State.HELD), ("10.8.0.0/16", State.QUARANTINED)):
        seen = snap(broken, *LOST, rules=make_rules(networks), unfit=unfit, known=known)
        assert decide(seen).entries[KEY].state is state


def test_the_last_server_stays_where_it_is_though_the_setting_has_gone() -> None:
    """While no other server is up, a setting that excludes the last one may be wrong."""
    server = SERVER._replace(address="10.7.0.5")
    known = {KEY: ALONE[KEY]._replace(server=server)}
    entry = decide(snap(file(web(addr="10.7.0.5")), rules=make_rules(""), known=known)).entries[KEY]
    assert (entry.state, entry.server) == (State.LAST, server)


def test_a_member_moves_by_its_tag() -> None:
    """A change of the tag is a change of the place, to which HAProxy's refusals belong."""
    assert find_place(web(addr="10.7.0.5"), "nodes") != find_place(web(addr="10.7.0.6"), "nodes")
    assert find_place(web(addr="10.7.0.5"), "nodes") == find_place(web(addr="10.7.0.5", weight="7"), "nodes")
