"""A member -> the server that HAProxy would have: pure."""

import functools
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.serf.events import Member, unescape

WEIGHT_MAX = 256  # HAProxy's own limit


class Server(NamedTuple):
    """One `server` line.

    Attributes:
        name: The node's name, safe in HAProxy's configuration.
        address: A normalised IP address.
        port: 1 to 65535.
        weight: 0 to 256, None for HAProxy's default. 0 drains: what is there stays, nothing new comes.
    """

    name: str
    address: str
    port: int
    weight: int | None

    @property
    def endpoint(self) -> str:
        """Address and port in HAProxy's notation: an IPv6 address stands in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def read_server(member: Member, default_port: int) -> Server:
    """Read a member's address and its known tags.

    Raises:
        ValueError: One of them is wrong; the text says which and what is allowed.
    """
    tags = member.tag_values()
    weight = _tag(tags, "weight", 0, WEIGHT_MAX)
    if tags.get("drain", "false") not in ("true", "false"):
        raise ValueError(f"tag drain={_short(tags['drain'])} is not true or false")
    port = _tag(tags, "port", 1, 65535)
    return Server(
        member.name,
        read_address(member.address),
        default_port if port is None else port,
        0 if tags.get("drain") == "true" else weight,
    )


def read_line(name: str, endpoint: str, weight: int) -> Server:
    """Return the server that a line of a published configuration describes (`layout.Line`)."""
    address, _, port = endpoint.rpartition(":")
    return Server(name, address.strip("[]"), int(port), None if weight == 1 else weight)


@functools.lru_cache(maxsize=65536)  # most addresses of a pass were in the one before
def read_address(text: str) -> str:
    """Return an IP address in its normal form; raise ValueError for anything that a server cannot have."""
    try:
        address = ipaddress.ip_address(unescape(text))
    except ValueError:
        raise ValueError(f"address {_short(text)} is not an IP address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"address {_short(text)} has a zone, which HAProxy cannot use")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"address {_short(text)} is not the address of one host")
    return str(address)


def _tag(tags: Mapping[str, str], key: str, low: int, high: int) -> int | None:
    if key not in tags:
        return None
    text = tags[key]
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and low <= int(text) <= high):
        raise ValueError(f"tag {key}={_short(text)} is not a whole number from {low} to {high}")
    return int(text)


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")
