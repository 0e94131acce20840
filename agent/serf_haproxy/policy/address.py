"""Where no server may be, whatever a member says: this machine, the local link, where a balancer listens. Pure.

Whoever reaches the gossip chooses his own address. Without this he could have the balancer ask itself, in a circle
whose health check succeeds, or a service that trusts its own machine or link, such as a cloud's metadata.
"""

import functools
import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128")))
# RFC 6890; multicast and the unspecified address are no host's at all (`server.read_address`).
_SPECIAL = tuple(map(ipaddress.ip_network, ("0.0.0.0/8", "169.254.0.0/16", "240.0.0.0/4", "::/96", "fe80::/10")))
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address follows
_REMEDY = "SERF_HAPROXY_NETWORKS can allow it"

Bind = tuple[str, int]


class Here(NamedTuple):
    """What is known of the balancers' own places.

    Attributes:
        own: The address of this balancer's node in normal form, "" when not known yet.
        taken: Addresses and ports at which balancers listen.
    """

    own: str = ""
    taken: frozenset[Bind] = frozenset()


def find_taken(binds: Iterable[Bind], own: str, balancers: Iterable[str]) -> frozenset[Bind]:
    """Return where balancers listen.

    Args:
        binds: Address and port of each place where this one listens; "" for all addresses.
        own: The address of this balancer's node, "" when not known.
        balancers: The addresses of all balancers: they listen at the same ports, each at its own address.
    """
    everywhere = {port for host, port in binds if host in ("", own)}
    return frozenset({bind for bind in binds if bind[0]} | {(host, port) for host in balancers for port in everywhere})


def check_endpoint(here: Here, networks: Iterable[Network], address: str, port: int) -> None:
    """Let an address in normal form and a port pass where a server may be.

    Args:
        here: The balancers' own places. While its own address is not known, loopback passes.
        networks: Networks of the operator's: one within the loopback or a special block allows its addresses.
        address: The address.
        port: The port.

    Raises:
        ValueError: No server is there; the text says why.
    """
    for face, block in _faces(address):
        if (str(face), port) in here.taken:
            raise ValueError(f"at address {address} port {port} a balancer listens: requests would go in a circle")
        if block is None or any(face in network and _is_within(network, block) for network in networks):
            continue
        if block not in _LOOPBACK:
            raise ValueError(f"address {address} is in {block}, which is no network of servers; {_REMEDY}")
        if here.own and _faces(here.own)[0][1] not in _LOOPBACK:
            raise ValueError(f"address {address} is the balancer's own machine; {_REMEDY}")


@functools.lru_cache(maxsize=65536)  # most addresses of a pass were in the one before
def _faces(text: str) -> tuple[tuple[Address, Network | None], ...]:
    """Return an address and the IPv4 address that it stands for, if any, each with the special block that it is in."""
    address = ipaddress.ip_address(text)
    faces: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        faces += [address.sixtofour] if address.sixtofour else []
        faces += [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)] if address in _TRANSLATED else []
    return tuple((face, next((block for block in _LOOPBACK + _SPECIAL if face in block), None)) for face in faces)


def _is_within(network: Network, block: Network) -> bool:
    return network.version == block.version and network.subnet_of(block)  # type: ignore[arg-type]
