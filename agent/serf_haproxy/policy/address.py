"""Addresses of members, and where no server may be: on this machine, on the local link, where a balancer listens. Pure.

Any node chooses the address that it announces. Without these rules it could make the balancer send requests to itself,
in a loop whose health check succeeds, or to a service that trusts its own machine or link, such as a cloud's metadata.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.serf.events import unescape
from serf_haproxy.serf.printing import quoted
from serf_haproxy.system.network import Address, Network

_LOOPBACK = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128")))
# RFC 6890; `read_address` refuses multicast and the unspecified address, which belong to no host, but not inside of an
# IPv6 address. 64:ff9b:1::/48 is for translators of a network's own (RFC 8215): which IPv4 address such an address
# leads to is not known here.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        """
        0.0.0.0/8 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4 192.0.0.0/24 ::/96 ::ffff:0:0:0/96 fe80::/10 64:ff9b:1::/48
        """.split(),  # noqa: SIM905
    )
)
# The metadata services of clouds that are outside of the link-local block (169.254.169.254): Alibaba, Azure (and its
# platform service), the IPv6 ones of AWS (and its services for pods), Google, Oracle and Scaleway. Oracle's first one
# (192.0.0.192) is in a special block.
_METADATA = tuple(
    map(
        ipaddress.ip_network,
        ("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::/32", "fd00:c1::/32", "fd00:42::42/128"),
    )
)
# The version of each block, its mask and its first address. A network's own test takes ten times as long.
_BLOCKS = tuple(
    (block.version, int(block.netmask), int(block.network_address), block) for block in _LOOPBACK + _SPECIAL + _METADATA
)
# The last four bytes of these are an IPv4 address: behind a translator (RFC 6052), or at the end of a tunnel (ISATAP,
# RFC 5214, with these four bytes before it).
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)
_REMEDY = "SERF_HAPROXY_NETWORKS can allow it"

_NONE: frozenset[str] = frozenset()
OWN = "*"  # no name of a node

Bind = tuple[str, int]  # address in normal form, "" for all addresses; port


class HostAddress(NamedTuple):
    """The IP address of one host, parsed once.

    Attributes:
        text: Its normal form.
        faces: The address, then the IPv4 address that it embeds, if any; each with the special block that it is in.
    """

    text: str
    faces: tuple[tuple[Address, Network | None], ...]

    @property
    def is_loopback(self) -> bool:
        """Whether it is an address of the machine that uses it."""
        return self.faces[0][1] in _LOOPBACK


class Here(NamedTuple):
    """What is known of the balancers' own addresses.

    Attributes:
        own: The address of this balancer's node; None while it is not known.
        taken: Addresses and ports at which balancers listen, each with the names of the nodes that say so; OWN is
            for this balancer, whose settings say so.
        local: All addresses of this machine, in normal form; every loopback address is one besides.
        everywhere: Ports at which this balancer listens at all of them.
    """

    own: HostAddress | None = None
    taken: Mapping[Bind, frozenset[str]] = {}
    local: frozenset[str] = frozenset()
    everywhere: frozenset[int] = frozenset()

    def is_taken(self, face: Address, block: Network | None, port: int, name: str) -> bool:
        """Return whether a balancer listens at an address, which is in a special block or in none, and a port.

        What the node with this name says of itself does not count.
        """
        text = str(face)
        is_local = block in _LOOPBACK or text in self.local
        return bool(self.taken.get((text, port), _NONE) - {name}) or (is_local and port in self.everywhere)


def read_address(text: str) -> HostAddress:
    """Parse the address of a member, as its node file has it.

    Raises:
        ValueError: A server cannot have it; the text says why.
    """
    try:
        address = ipaddress.ip_address(unescape(text))
    except ValueError:
        raise ValueError(f"address {shorten(text)} is not an IP address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"address {shorten(text)} has a zone, which HAProxy cannot use")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"address {shorten(text)} is not the address of one host")
    faces: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        faces += [address.sixtofour] if address.sixtofour else []
        faces += [address.teredo[1]] if address.teredo else []
        if address in _TRANSLATED or int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
            faces.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return HostAddress(str(address), tuple((face, _find_block(face)) for face in faces))


def locate(binds: Iterable[Bind], own: HostAddress | None, balancers: Mapping[str, str], local: frozenset[str]) -> Here:
    """Return where the balancers are.

    Args:
        binds: Where this balancer listens.
        own: The address of this balancer's node; None while it is not known.
        balancers: The addresses of all balancers by name: they listen at the same ports, each at its own address.
        local: All addresses of this machine.
    """
    binds = tuple(binds)
    shared = {port for host, port in binds if host in ("", own.text if own else "")}
    taken = {bind: frozenset([OWN]) for bind in binds if bind[0]}
    for name, host in [*([(OWN, own.text)] if own else []), *balancers.items()]:
        for port in shared:
            taken[host, port] = taken.get((host, port), _NONE) | {name}
    return Here(own, taken, local, frozenset(port for host, port in binds if not host))


def check_endpoint(here: Here, networks: Iterable[Network], address: HostAddress, port: int, name: str = "") -> None:
    """Return when a server may be at an address and port.

    Args:
        here: The balancers' own addresses. While its own is not known, or is loopback, addresses of this machine are
            accepted where no balancer listens: the whole cluster may be on it.
        networks: The operator's networks: one within the loopback or a special block allows its addresses, and any of
            them those of this machine.
        address: The address.
        port: The port.
        name: The name of the node: what it says of itself does not count against its own server.

    Raises:
        ValueError: No server may be there; the text says why.
    """
    is_elsewhere = here.own is not None and not here.own.is_loopback
    for face, block in address.faces:
        if here.is_taken(face, block, port, name):
            raise ValueError(f"a balancer listens at address {address.text} port {port}: requests would go in a circle")
        if block is None:
            if is_elsewhere and str(face) in here.local and not any(face in network for network in networks):
                raise ValueError(f"address {address.text} is on the balancer's own machine; {_REMEDY}")
            continue
        if any(face in network and _is_within(network, block) for network in networks):
            continue
        if block not in _LOOPBACK:
            raise ValueError(f"address {address.text} is in {block}, which is not a network of servers; {_REMEDY}")
        if is_elsewhere:
            raise ValueError(f"address {address.text} is on the balancer's own machine; {_REMEDY}")


def check_announced(here: Here, address: HostAddress, port: int, name: str = "") -> None:
    """Return when a member may announce an address other than its own. No setting allows more.

    A member is not at the address that it announces, so nothing speaks for it: a special block, the balancer's own
    machine and the listeners of balancers are refused wherever the cluster is.

    Args:
        here: The balancers' own addresses.
        address: The address.
        port: The port of the server there.
        name: The name of the node: what it says of itself does not count against its own server.

    Raises:
        ValueError: No member may announce it; the text says why.
    """
    own = here.own.text if here.own else ""
    for face, block in address.faces:
        if block is not None:
            raise ValueError(f"tag addr: address {address.text} is in {block}, where no tag may lead")
        if str(face) in here.local or str(face) == own:
            raise ValueError(
                f"tag addr: address {address.text} is on the balancer's own machine, where no tag may lead"
            )
        if here.is_taken(face, block, port, name):
            where = f"address {address.text} port {port}"
            raise ValueError(f"tag addr: a balancer listens at {where}: requests would go in a circle")


def shorten(text: str) -> str:
    """Return a text of unknown origin in a form that is short and safe to print."""
    return quoted(text, 40)


def _find_block(address: Address) -> Network | None:
    number, its = int(address), address.version
    return next((block for version, mask, first, block in _BLOCKS if version == its and number & mask == first), None)


def _is_within(network: Network, block: Network) -> bool:
    return network.version == block.version and network.subnet_of(block)  # type: ignore[arg-type]
