"""Policy for members: networks, ports, and the proof of membership against copies and changes."""

import ipaddress
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from serf_haproxy.policy.address import HostAddress
from serf_haproxy.policy.admission import Policy, check_place
from serf_haproxy.policy.proof import (
    PROOF_TAG,
    SIGNED_TAGS,
    Secret,
    check_proof,
    make_proof,
    read_secrets,
)
from serf_haproxy.system.network import read_networks, read_ports

SECRET = Secret(b"correct horse battery staple")
OTHER_SECRET = Secret(b"incorrect horse battery staple")
TAGS = {"role": "web", "port": "8080"}
PROOF = make_proof(SECRET, "web1", "10.1.0.1", TAGS)

ANY_TEXT = st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.text(max_size=40)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
WORDS = st.from_regex(r"[A-Za-z0-9_.-]{0,10}", fullmatch=True)
FREE = st.dictionaries(ANY_TEXT.filter(lambda key: key not in (*SIGNED_TAGS, PROOF_TAG)), ANY_TEXT, max_size=3)
LITERALS = st.ip_addresses().map(str)
SIGNED = st.fixed_dictionaries({}, optional={"addr": LITERALS, "port": WORDS, "role": WORDS})
ADDRESSES = st.ip_addresses().filter(lambda address: not getattr(address, "ipv4_mapped", None)).map(str)


Claim = tuple[str, HostAddress, int, dict[str, str]]


def check_claim(policy: Policy, name: str, address: HostAddress, port: int, tags: dict[str, str]) -> None:
    """Return when the policy allows what a member claims."""
    check_place(policy, address, port)
    if policy.secrets:
        check_proof(policy.secrets, name, address.text, tags)


def parse(address: str) -> HostAddress:
    """Return any IP address as a member's."""
    return HostAddress(address, ((ipaddress.ip_address(address), None),))


def claim(address: str = "10.1.0.1", port: int = 8080, tags: dict[str, str] = TAGS) -> Claim:
    """Return the claim of the member web1."""
    return "web1", parse(address), port, tags


def fault(policy: Policy, said: Claim) -> str:
    """Return the reason why a claim is refused, "" when it passes."""
    try:
        check_claim(policy, *said)
    except ValueError as error:
        return as_printable(str(error))
    return ""


def as_printable(reason: str) -> str:
    """Return a reason; assert that it is printable."""
    assert reason
    assert reason.isascii()
    assert reason.isprintable()
    return reason


def is_proven(name: str, address: str, tags: dict[str, str], secrets: tuple[Secret, ...] = (SECRET,)) -> bool:
    """Return whether a member's proof passes."""
    try:
        check_proof(secrets, name, address, tags)
    except ValueError as error:
        return not as_printable(str(error))
    return True


@given(NAMES, ADDRESSES, st.integers(1, 65535), FREE)
def test_without_a_policy_every_claim_passes(name: str, address: str, port: int, tags: dict[str, str]) -> None:
    """Without networks, ports and a secret, every claim passes."""
    check_claim(Policy(), name, parse(address), port, tags)


@pytest.mark.parametrize(
    ("networks", "address", "passes"),
    [
        ("10.1.0.0/16", "10.1.255.255", True),
        ("10.1.0.0/16", "10.2.0.0", False),
        ("10.1.0.0/16", "2001:db8::1", False),
        ("10.1.0.0/16,2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:db8::/32", "10.1.0.1", False),
        ("10.1.0.7", "10.1.0.7", True),
        ("10.1.0.7", "10.1.0.8", False),
        ("0.0.0.0/0", "10.1.0.1", True),
        ("::/0", "10.1.0.1", False),
    ],
)
def test_only_allowed_networks_pass(networks: str, address: str, passes: bool) -> None:
    """An address passes when one of the networks of its IP version contains it."""
    reason = fault(Policy(networks=read_networks(networks)), claim(address))
    assert (not reason) is passes
    if reason:
        assert reason == f"address {address} is in none of the networks that SERF_HAPROXY_NETWORKS allows"


@pytest.mark.parametrize(
    ("ports", "port", "passes"),
    [
        ("80", 80, True),
        ("80", 81, False),
        ("80,8000-8999", 8999, True),
        ("80,8000-8999", 9000, False),
        ("1-1", 1, True),
    ],
)
def test_only_allowed_ports_pass(ports: str, port: int, passes: bool) -> None:
    """A port passes when one of the ranges contains it."""
    reason = fault(Policy(ports=read_ports(ports)), claim(port=port))
    assert (not reason) is passes
    if reason:
        assert reason == f"port {port} is in none of the ranges that SERF_HAPROXY_PORTS allows"


def test_one_broken_rule_is_enough() -> None:
    """A claim passes only if it passes every rule."""
    policy = Policy(read_networks("10.1.0.0/16"), read_ports("8080"), (SECRET,))
    proven = TAGS | {PROOF_TAG: PROOF}
    assert fault(policy, claim(tags=proven)) == ""
    assert "port 8081" in fault(policy, claim(port=8081, tags=proven))
    assert "has no tag proof" in fault(policy, claim())
    elsewhere = TAGS | {PROOF_TAG: make_proof(SECRET, "web1", "10.2.0.1", TAGS)}
    assert "address 10.2.0.1" in fault(policy, claim("10.2.0.1", tags=elsewhere))


@given(NAMES, ADDRESSES, SIGNED, FREE, FREE)
def test_proof_passes_for_its_member(
    name: str, address: str, signed: dict[str, str], before: dict[str, str], after: dict[str, str]
) -> None:
    """A proof passes whatever unsigned tags the node has, among them weight and drain."""
    proof = make_proof(SECRET, name, address, signed | before)
    assert is_proven(name, address, signed | after | {PROOF_TAG: proof})


@given(
    st.tuples(NAMES, ADDRESSES, SIGNED),
    st.tuples(NAMES, ADDRESSES, SIGNED),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_copied_proof_fails_for_another_member(
    own: tuple[str, str, dict[str, str]], other: tuple[str, str, dict[str, str]], taken: list[bool]
) -> None:
    """A proof copied to a member with another name, address or signed tag fails."""
    claimed = tuple(theirs if is_taken else ours for ours, theirs, is_taken in zip(own, other, taken, strict=True))
    assume(claimed != own)
    name, address, tags = claimed
    assert not is_proven(name, address, tags | {PROOF_TAG: make_proof(SECRET, *own)})


@pytest.mark.parametrize("key", SIGNED_TAGS)
def test_each_signed_tag_is_signed(key: str) -> None:
    """A proof fails when a signed tag is changed, emptied, left out or added."""
    tags = TAGS | {"addr": "10.7.0.1"}
    proven = tags | {PROOF_TAG: make_proof(SECRET, "web1", "10.1.0.1", tags)}
    without = {other: value for other, value in proven.items() if other != key}
    assert is_proven("web1", "10.1.0.1", proven)
    assert not is_proven("web1", "10.1.0.1", proven | {key: proven[key] + "0"})
    assert not is_proven("web1", "10.1.0.1", proven | {key: ""})
    assert not is_proven("web1", "10.1.0.1", without)
    bare = without | {PROOF_TAG: make_proof(SECRET, "web1", "10.1.0.1", without)}
    assert is_proven("web1", "10.1.0.1", bare)
    assert not is_proven("web1", "10.1.0.1", bare | {key: ""})


def test_no_byte_moves_between_fields() -> None:
    """Fields with the same concatenation have different proofs."""
    proofs = [
        make_proof(SECRET, "web1", "10.1.0.1", {"port": "80"}),
        make_proof(SECRET, "web", "110.1.0.1", {"port": "80"}),
        make_proof(SECRET, "web1", "10.1.0.1", {"port": "80role"}),
        make_proof(SECRET, "web1", "10.1.0.1", {"port": "80", "role": ""}),
        make_proof(SECRET, "web1", "10.1.0.1", {"role": "port80"}),
        make_proof(SECRET, "web110.1.0.1", "10.1.0.1", {}),
    ]
    assert len(set(proofs)) == len(proofs)


def test_proof_is_always_the_same() -> None:
    """The format is stable, because nodes and balancers of different releases must agree on it."""
    assert PROOF == "v1.tIF0K_9kKG7tyjx0aLGHXA"


@given(NAMES, ADDRESSES, SIGNED)
def test_proof_is_short_and_survives_serf(name: str, address: str, signed: dict[str, str]) -> None:
    """A proof uses 25 of Serf's 512 bytes, and no character that Serf or a node file escapes."""
    assert re.fullmatch(r"v1\.[A-Za-z0-9_-]{22}", make_proof(SECRET, name, address, signed))


@given(ANY_TEXT | st.text("v1.=-_ABCab", max_size=30) | st.integers(0, 25).map(lambda length: PROOF[:length]))
@example(PROOF[:-1])
@example(PROOF + "==")
@example(PROOF + "A")
@example(" " + PROOF)
@example(PROOF.upper())
@example("v2" + PROOF[2:])
@example("")
def test_no_other_text_passes(said: str) -> None:
    """Only the exact proof passes, no part, extension or other encoding of it."""
    assume(said != PROOF)
    assert not is_proven("web1", "10.1.0.1", TAGS | {PROOF_TAG: said})


def test_another_encoding_of_the_bits_fails() -> None:
    """The last of 22 characters has four spare bits, and only one of its sixteen encodings passes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    passing = [last for last in alphabet if is_proven("web1", "10.1.0.1", TAGS | {PROOF_TAG: PROOF[:-1] + last})]
    assert passing == [PROOF[-1]]


def test_reason_says_what_is_wrong_with_a_proof() -> None:
    """A missing, a malformed and a wrong proof have different reasons, each with the remedy."""
    policy = Policy(secrets=(SECRET,))
    reasons = {
        "": "it has no tag proof",
        "v2." + PROOF[3:]: "is of version 'v2', not v1",
        PROOF[:-2]: "was made for another name, address, addr, port, role or with another secret",
    }
    for said, words in reasons.items():
        reason = fault(policy, claim(tags=TAGS | {PROOF_TAG: said}))
        assert words in reason
        assert "give it the tag that 'serf-haproxy proof' prints" in reason


def test_another_secret_makes_no_valid_proof() -> None:
    """A proof made with another secret fails."""
    assert not is_proven("web1", "10.1.0.1", TAGS | {PROOF_TAG: make_proof(OTHER_SECRET, "web1", "10.1.0.1", TAGS)})


def test_secret_can_be_rotated() -> None:
    """While the file has the old and the new secret, proofs of both pass; afterwards only the new ones."""
    old, new = (TAGS | {PROOF_TAG: make_proof(key, "web1", "10.1.0.1", TAGS)} for key in (SECRET, OTHER_SECRET))
    for proven in (old, new):
        assert is_proven("web1", "10.1.0.1", proven, (OTHER_SECRET, SECRET))
    assert not is_proven("web1", "10.1.0.1", old, (OTHER_SECRET,))


@pytest.mark.parametrize("written", ["::ffff:10.1.0.1", "::FFFF:0a01:0001"])
def test_proof_is_for_an_address_in_any_form(written: str) -> None:
    """Another notation of the address gives the same proof."""
    assert make_proof(SECRET, "web1", written, TAGS) == PROOF


@pytest.mark.parametrize(
    ("address", "tags"),
    [
        ("web1.example", TAGS),
        ("", TAGS),
        ("10.1.0.1/32", TAGS),
        ("10.1.0.1", {"role": "a,port=1"}),
        ("10.1.0.1", {"role": "a\tb"}),
        ("10.1.0.1", {"role": "wéb"}),
        ("10.1.0.1", {"port": "80\n"}),
        ("10.1.0.1", {"addr": "app"}),
        ("10.1.0.1", {"addr": "10.7.0.1,port=1"}),
    ],
)
def test_no_proof_for_unverifiable_members(address: str, tags: dict[str, str]) -> None:
    """No proof is made for an invalid address or a tag that is ambiguous in Serf's events."""
    with pytest.raises(ValueError):  # noqa: PT011 - the text comes from proof or from ipaddress
        make_proof(SECRET, "web1", address, tags)


def test_secret_is_never_printed() -> None:
    """The representations of a secret and a policy, and the error of a short secret, do not contain it."""
    assert "horse" not in repr(Policy(secrets=(SECRET,))) + str(SECRET) + f"{[SECRET]}"
    with pytest.raises(ValueError, match="16 or more characters") as caught:
        read_secrets("short but secret\nhush")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n", "  \n\n", "fifteen letters"])
def test_missing_or_short_secret_is_refused(text: str) -> None:
    """A file without a secret is refused, and so is a short secret, which could be guessed from a proof."""
    with pytest.raises(ValueError, match="must have one secret of 16 or more characters on each line"):
        read_secrets(text)


def test_secrets_are_read_line_by_line() -> None:
    """Blank lines and blanks around a secret are ignored, other characters are not."""
    read = read_secrets(" correct horse battery staple\r\n\n# sixteen letters\n")
    assert read == (SECRET, Secret(b"# sixteen letters"))
    assert read != (SECRET, OTHER_SECRET)
    assert len({*read, SECRET}) == 2


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("", []),
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.1.2.3", ["10.1.2.3/32"]),
        ("2001:DB8::/32 , 10.0.0.0/8", ["10.0.0.0/8", "2001:db8::/32"]),
        ("10.0.0.0/9,10.128.0.0/9,10.1.0.0/16", ["10.0.0.0/8"]),
        ("::1 127.0.0.0/8", ["127.0.0.0/8", "::1/128"]),
        ("::/0", ["::/0"]),
    ],
)
def test_networks_are_read(text: str, networks: list[str]) -> None:
    """Networks are separated by commas or blanks; a network inside another one is left out."""
    assert read_networks(text) == tuple(map(ipaddress.ip_network, networks))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",", "names nothing"),
        ("  ", "names nothing"),
        ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("10.0.0.0/33", "10.0.0.0/33"),
        ("10.0.0.0/255.0.0.0", "is no network like"),
        ("10.0.0.0/-1", "is no network like"),
        ("10.0.0.0/", "is no network like"),
        ("10.0.0/8", "10.0.0/8"),
        ("010.0.0.0/8", "010.0.0.0/8"),
        ("fe80::%1/64", "is no network like"),
        ("web1", "is no network like"),
        ("\u0661\u0660.0.0.0/8", "is no network like"),
        ("::ffff:0:0/95", "/95 has host bits set"),
        ("::ffff:10.0.0.0/104", "is a network of IPv4 addresses; write it as one"),
        ("10.0.0.0/8;11.0.0.0/8", "is no network like"),
    ],
)
def test_invalid_network_is_refused(text: str, words: str) -> None:
    """Text that is not a network, or a network that never matches, is refused by name."""
    with pytest.raises(ValueError, match=re.escape(words)):
        read_networks(text)


@given(st.lists(st.ip_addresses().map(ipaddress.ip_network), max_size=4), ADDRESSES)
def test_leaving_out_networks_changes_nothing(networks: list[ipaddress.IPv4Network], address: str) -> None:
    """An address passes exactly when one of the given networks contains it."""
    assume(not any(getattr(network.network_address, "ipv4_mapped", None) for network in networks))
    read = read_networks(",".join(map(str, networks)))
    expected = not networks or any(ipaddress.ip_address(address) in network for network in networks)
    assert (fault(Policy(networks=read), claim(address)) == "") is expected


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", ()),
        ("80", ((80, 80),)),
        ("8000-8999 , 80", ((80, 80), (8000, 8999))),
        ("1-65535", ((1, 65535),)),
        ("80,80", ((80, 80),)),
        ("0080", ((80, 80),)),
    ],
)
def test_ports_are_read(text: str, ports: tuple[tuple[int, int], ...]) -> None:
    """Ports and ranges are separated by commas or blanks."""
    assert read_ports(text) == ports


@pytest.mark.parametrize(
    "text",
    ["0", "65536", "1-65536", "0-80", "81-80", "-80", "80-", "80-81-82", "web", "8O", "+80", "\uff18\uff10", "999999"],
)
def test_invalid_port_is_refused(text: str) -> None:
    """Text that is neither a port nor a range is refused by name."""
    with pytest.raises(ValueError, match="is no port from 1 to 65535 and no range like 8000-8999"):
        read_ports(f"80,{text}")


@given(ANY_TEXT)
def test_no_text_breaks_the_readers(text: str) -> None:
    """Any text is parsed or refused with ValueError, and only an empty one allows everything."""
    for read in (read_networks, read_ports):
        try:
            assert bool(read(text)) is bool(text)
        except ValueError as error:
            as_printable(str(error))
