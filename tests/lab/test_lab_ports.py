"""Addresses and port numbers of the lab."""

import socket

import pytest

import workers
from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab import ports
from serf_haproxy.lab.ports import Listener

HOST = f"127.77.0.{workers.NUMBER + 1}"


def test_node_addresses_go_on_in_the_next_network() -> None:
    """The 254 hosts of 127.0.1.0 come first, then those of 127.0.2.0; no address ends in .0 or .255."""
    addresses = [ports.address_node(number) for number in range(1, 600)]
    assert addresses[:2] == ["127.0.1.1", "127.0.1.2"]
    assert addresses[253:255] == ["127.0.1.254", "127.0.2.1"]
    assert len(set(addresses)) == len(addresses)


def test_the_number_of_a_balancer_is_in_its_name_and_address() -> None:
    """lb2 is at 127.0.0.2; only lb1 to lb9 are names of balancers."""
    assert ports.address_balancer("lb2") == "127.0.0.2"
    assert [name for name in ("lb1", "lb10", "lb0", "lb", "xlb1", "web1") if ports.is_balancer(name)] == ["lb1"]
    with pytest.raises(InputError, match="lb1 to lb9"):
        ports.address_balancer("lb10")


@pytest.mark.parametrize("base", [0, -5, 65527])
def test_a_port_base_leaves_room_for_all_ports(base: int) -> None:
    """All ten port numbers, from the base on, must be valid."""
    with pytest.raises(InputError, match=f"--port-base {base}"):
        ports.number_ports(base)


@pytest.mark.parametrize("address", ["10.0.0.1", "::1", "localhost", "127.0.0.1 ", ""])
def test_only_loopback_addresses_are_accepted(address: str) -> None:
    """An address outside of 127.0.0.0/8 is an error."""
    with pytest.raises(InputError, match="127.0.0.0/8"):
        ports.read_address(address)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_taken_port_is_reported(kind: socket.SocketKind) -> None:
    """A port for gossip must be free for TCP and for UDP."""
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((HOST, 20990))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        with pytest.raises(SystemFault, match=f"gossip of x: {HOST}:20990: Address already in use"):
            ports.check_free([Listener("gossip of x", HOST, 20990, is_udp=True)])
    ports.check_free([Listener("gossip of x", HOST, 20990, is_udp=True)])


def test_two_listeners_cannot_share_a_port() -> None:
    """The user may choose a port for the application that Serf needs at the same address."""
    with pytest.raises(InputError, match="the app and Serf both want 127.0.1.1:20003"):
        ports.check_free([Listener("the app", "127.0.1.1", 20003), Listener("Serf", "127.0.1.1", 20003)])
