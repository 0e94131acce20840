"""Endpoints as HAProxy writes them; networks and port ranges as an operator does."""

import functools
import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PortRange = tuple[int, int]


@functools.lru_cache(maxsize=65536)  # a pass writes the endpoint of each server several times
def format_endpoint(address: str, port: int | str) -> str:
    """Return an address and a port in HAProxy's notation: an IPv6 address is in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split_endpoint(endpoint: str) -> tuple[str, str]:
    """Return the address, without brackets, and the port of an endpoint; neither is checked."""
    address, _, port = endpoint.rpartition(":")
    return address.strip("[]"), port


def locate_bind(bind: str) -> tuple[str, int]:
    """Return the address of a listener in normal form, "" for all addresses, and its port."""
    host, port = split_endpoint(bind)
    if host in ("", "*"):
        return "", int(port)
    address = ipaddress.ip_address(host)
    address = getattr(address, "ipv4_mapped", None) or address
    return "" if address.is_unspecified else str(address), int(port)


def overlap(bind: str, other: str) -> bool:
    """Return whether two listeners would be at one address and port."""
    (host, port), (other_host, other_port) = locate_bind(bind), locate_bind(other)
    return port == other_port and (host == other_host or not host or not other_host)


def read_networks(text: str) -> tuple[Network, ...]:
    """Return the networks in a text like `10.1.0.0/16,2001:db8::/32`; an empty text has none, which means all.

    Raises:
        ValueError: A word is not a network, or is one of IPv4-mapped addresses, which no normalised address matches.
    """
    networks = []
    for word in _words(text):
        # ipaddress would also take a netmask, of which there are two kinds, and a zone.
        if not re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?", word, re.ASCII):
            raise ValueError(f"{word!a} is no network like 10.1.0.0/16")
        network = ipaddress.ip_network(word)
        if network.version == 6 and network.network_address.ipv4_mapped and network.prefixlen >= 96:
            raise ValueError(f"{word} is a network of IPv4 addresses; write it as one")
        networks.append(network)
    by_version = [[network for network in networks if network.version == version] for version in (4, 6)]
    return tuple(network for same in by_version for network in ipaddress.collapse_addresses(same))  # type: ignore[type-var]


def read_ports(text: str) -> tuple[PortRange, ...]:
    """Return first and last port of each range in a text like `80,8000-8999`, sorted; an empty text has none: all.

    Raises:
        ValueError: A word is neither a port nor a range.
    """
    ranges = []
    for word in _words(text):
        found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", word, re.ASCII)
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= low <= high <= 65535:
            raise ValueError(f"{word!a} is no port from 1 to 65535 and no range like 8000-8999")
        ranges.append((low, high))
    return tuple(sorted(set(ranges)))


def _words(text: str) -> list[str]:
    """Split at commas and blanks. A text of nothing else is refused: it would allow everything, surely by mistake."""
    words = text.replace(",", " ").split()
    if text and not words:
        raise ValueError(f"{text!a} names nothing")
    return words
