"""Addresses that no server may have: loopback, link-local, reserved, and where a balancer listens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.checks import assert_printable
from serf_haproxy.policy.address import Here, check_endpoint, find_taken, read_address
from serf_haproxy.system.network import read_networks

TAKEN: dict[tuple[str, int], frozenset[str]] = {}


def fault(address: str, port: int = 80, own: str = "10.0.0.9", networks: str = "", taken: object = TAKEN) -> str:
    """Return the reason why no server may be at an endpoint, "" when one may."""
    try:
        here = Here(read_address(own) if own else None, taken)  # type: ignore[arg-type]
        check_endpoint(here, read_networks(networks), read_address(address), port)
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
    ],
)
def test_special_addresses_are_refused(own: str, address: str, network: str) -> None:
    """Link-local and reserved addresses, also embedded in IPv6, are refused unless a network allows them."""
    assert "SERF_HAPROXY_NETWORKS" in fault(address, own=own)
    assert fault(address, own=own, networks="0.0.0.0/0,::/0"), "who allows all did not think of these"
    assert fault(address, own=own, networks=network) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.255.254", "::1", "64:ff9b::7f00:1", "2002:7f00:1::"])
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
    assert find_taken(binds, "10.0.0.9", {"lb1": "10.0.0.9", "lb2": "10.0.0.8"}).keys() == taken


def test_a_balancers_endpoint_is_refused() -> None:
    """A balancer's own endpoints are refused, whatever the networks allow; its other ports are accepted."""
    taken = {("10.0.0.9", 80): frozenset(["lb1"])}
    for address in ("10.0.0.9", "64:ff9b::a00:9"):
        assert "in a circle" in fault(address, 80, taken=taken, networks="10.0.0.0/8,64:ff9b::/96")
        assert fault(address, 81, taken=taken) == ""
