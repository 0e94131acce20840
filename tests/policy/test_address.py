"""Addresses that no server may have: loopback, link-local, reserved, and where a balancer listens."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.checks import assert_printable
from serf_haproxy.policy.address import Here, check_endpoint, locate, read_address
from serf_haproxy.system.network import Network, read_networks

TAKEN: dict[tuple[str, int], frozenset[str]] = {}


def fault(address: str, port: int = 80, own: str = "10.0.0.9", networks: str = "", taken: object = TAKEN) -> str:
    """Return the reason why no server may be at an endpoint, "" when one may."""
    here = Here(read_address(own) if own else None, taken)  # type: ignore[arg-type]
    return judge(here, read_networks(networks), address, port)


def judge(here: Here, networks: Iterable[Network], address: str, port: int) -> str:
    """Return the reason why no server may be at an endpoint, "" when one may."""
    try:
        check_endpoint(here, networks, read_address(address), port)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("own", ["10.0.0.9", "127.0.0.1", ""])
@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("169.254.169.254", "169.254.0.0/16"),
        ("fe80::1", "fe80::/64"),
        ("0.0.0.1", "0.0.0.0/8"),
        ("240.0.0.0", "240.0.0.0/4"),
        ("255.255.255.255", "255.255.255.255"),
        ("::127.0.0.1", "::/96"),
        ("64:ff9b::169.254.169.254", "169.254.169.254"),
        ("2002:a9fe:a9fe::1", "169.254.169.254"),
        ("100.100.100.200", "100.100.100.200"),
        ("192.0.0.192", "192.0.0.192"),
        ("168.63.129.16", "168.63.129.16"),
        ("64:ff9b::a83f:8110", "168.63.129.16"),
        ("fd00:ec2::254", "fd00:ec2::254"),
        ("fd20:ce::254", "fd20:ce::254"),
        ("fd00:ec2::23", "fd00:ec2::23"),
        ("fd00:c1::a9fe:a9fe", "fd00:c1::a9fe:a9fe"),
        ("fd00:42::42", "fd00:42::42"),
        ("::ffff:0:a9fe:a9fe", "::ffff:0:a9fe:a9fe"),
        ("64:ff9b:1::a9fe:a9fe", "64:ff9b:1::/48"),
        ("64:ff9b:1:ffff::7f00:1", "64:ff9b:1::/48"),
        ("2001:0:5ef5:79fd:0:f227:5601:5601", "169.254.169.254"),
        ("2001:db8::5efe:a9fe:a9fe", "169.254.169.254"),
        ("2001:db8::200:5efe:6464:64c8", "100.100.100.200"),
        ("64:ff9b::224.0.0.1", "224.0.0.0/4"),
    ],
)
def test_special_addresses_are_refused(own: str, address: str, network: str) -> None:
    """Link-local and reserved addresses, also embedded in IPv6, are refused unless a network allows them."""
    assert "SERF_HAPROXY_NETWORKS" in fault(address, own=own)
    assert fault(address, own=own, networks="0.0.0.0/0,::/0"), "who allows all did not think of these"
    assert fault(address, own=own, networks=network) == ""


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.255.255.254", "::1", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00::5efe:7f00:1"]
)
def test_loopback_is_refused(address: str) -> None:
    """Loopback is refused unless the balancer is there, its address is unknown, or a network allows it."""
    for own in ("10.0.0.9", "2001:db8::1"):
        assert "the balancer's own machine" in fault(address, own=own)
        assert fault(address, own=own, networks="127.0.0.0/8,::1") == ""
    for own in ("127.0.0.1", "127.3.2.1", "::1", ""):
        assert fault(address, own=own) == ""


@pytest.mark.parametrize("address", ["10.0.0.9", "192.168.1.1", "8.8.8.8", "2001:db8::1", "fd00::1", "64:ff9b::a00:1"])
def test_other_addresses_pass(address: str) -> None:
    """Private and public addresses are accepted, including the balancer's own."""
    assert fault(address) == ""


@given(st.ip_addresses().map(str), st.integers(1, 65535), st.sampled_from(["", "10.0.0.9", "::1"]))
def test_any_address_is_judged(address: str, port: int, own: str) -> None:
    """Every address is accepted or refused with a reason."""
    assert_printable(fault(address, port, own) or "nothing")


@pytest.mark.parametrize(
    ("binds", "taken"),
    [
        ([("", 80)], {("10.0.0.9", 80), ("10.0.0.8", 80)}),
        ([("10.0.0.9", 80)], {("10.0.0.9", 80), ("10.0.0.8", 80)}),
        ([("10.0.0.100", 80)], {("10.0.0.100", 80)}),
        ([("127.0.0.1", 80), ("", 81)], {("127.0.0.1", 80), ("10.0.0.9", 81), ("10.0.0.8", 81)}),
    ],
)
def test_balancers_listen_at_the_same_ports(binds: list[tuple[str, int]], taken: set[tuple[str, int]]) -> None:
    """A bind to all addresses or to the own one applies to every balancer's address; any other to itself."""
    own, balancers = read_address("10.0.0.9"), {"lb1": "10.0.0.9", "lb2": "10.0.0.8"}
    assert locate(binds, own, balancers, frozenset()).taken.keys() == taken
    del balancers["lb1"]
    assert locate(binds, own, balancers, frozenset()).taken.keys() == taken, "its node may have left"


@pytest.mark.parametrize(
    ("bind", "address", "port", "is_refused"),
    [
        (("", 80), "192.168.7.7", 80, True),  # a second address of the machine
        (("", 80), "64:ff9b::c0a8:707", 80, True),
        (("", 80), "2001:db8::7", 80, True),
        (("", 80), "127.0.0.1", 80, True),
        (("", 80), "127.5.4.3", 80, True),
        (("", 80), "::1", 80, True),
        (("", 80), "10.0.0.9", 80, True),
        (("", 80), "10.0.0.50", 80, False),  # another machine
        (("127.0.0.1", 80), "127.0.0.1", 80, True),
        (("127.0.0.1", 80), "127.0.0.2", 80, False),  # a lab on loopback
        (("192.168.7.7", 80), "192.168.7.7", 80, True),
        (("192.168.7.7", 80), "192.168.7.7", 81, False),
    ],
)
@pytest.mark.parametrize("own", ["", "10.0.0.9", "127.0.0.1"])
def test_where_the_balancer_listens_is_refused(
    own: str, bind: tuple[str, int], address: str, port: int, is_refused: bool
) -> None:
    """A server can be at no address of the machine where the balancer listens, whatever the networks, even unknown."""
    local = frozenset({"127.0.0.1", "::1", "10.0.0.9", "192.168.7.7", "2001:db8::7"})
    here = locate([bind], read_address(own) if own else None, {}, local)
    allowed = read_networks("0.0.0.0/8,127.0.0.0/8,10.0.0.0/8,192.168.0.0/16,2001:db8::/32,::1,64:ff9b::/96")
    assert ("in a circle" in judge(here, allowed, address, port)) is is_refused


def test_other_addresses_of_the_machine_are_refused_unless_a_network_allows_them() -> None:
    """Where the balancer's node is not on loopback, no server can be on its machine unless the networks allow it."""
    local = frozenset({"10.0.0.9", "192.168.7.7"})

    def is_accepted(own: str, networks: str, address: str) -> bool:
        here = locate([("", 80)], read_address(own) if own else None, {}, local)
        reason = judge(here, read_networks(networks), address, 8080)
        assert not reason or "SERF_HAPROXY_NETWORKS" in reason
        return not reason

    for address in ("192.168.7.7", "10.0.0.9", "64:ff9b::c0a8:707"):
        assert not is_accepted("10.0.0.9", "", address)
        assert is_accepted("127.0.0.1", "", address), "the cluster is on this machine"
        assert is_accepted("", "", address)
    assert is_accepted("10.0.0.9", "192.168.0.0/16", "192.168.7.7")
    assert is_accepted("10.0.0.9", "", "10.0.0.8")


def test_a_balancers_endpoint_is_refused() -> None:
    """A balancer's own endpoints are refused, whatever the networks allow; its other ports are accepted."""
    taken = {("10.0.0.9", 80): frozenset(["lb1"])}
    for address in ("10.0.0.9", "64:ff9b::a00:9"):
        assert "in a circle" in fault(address, 80, taken=taken, networks="10.0.0.0/8,64:ff9b::/96")
        assert fault(address, 81, taken=taken) == ""
