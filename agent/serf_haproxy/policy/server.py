"""Servers, and how a member's address and tags become one. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.policy.address import HostAddress, read_address, shorten
from serf_haproxy.serf.events import Member
from serf_haproxy.services import DEFAULT_SERVICE, Key
from serf_haproxy.system.network import format_endpoint, split_endpoint

WEIGHT_MAX = 256  # HAProxy's own limit
FASTEST_MS = 50  # the interval of the checks of a server that is new or has just gone down


class Server(NamedTuple):
    """One node's endpoint in a service: one `server` line.

    Attributes:
        name: The node's name, safe in HAProxy's configuration.
        address: An IP address in normal form.
        port: 1 to 65535.
        weight: 0 to 256, None for HAProxy's default. 0 drains: present clients stay, new ones go elsewhere.
        service: The service's name.
        check_interval_s: How often it is checked while it is up; the same for all servers of a service.
        down_interval_ms: How often it is checked while it is down.
    """

    name: str
    address: str
    port: int
    weight: int | None
    service: str = DEFAULT_SERVICE
    check_interval_s: int = 1
    down_interval_ms: int = FASTEST_MS

    @property
    def key(self) -> Key:
        """The names of its service and its node."""
        return self.service, self.name

    @property
    def endpoint(self) -> str:
        """Address and port in HAProxy's notation: an IPv6 address is in brackets."""
        return format_endpoint(self.address, self.port)


def read_server(member: Member, default_port: int) -> tuple[Server, HostAddress]:
    """Return the server that a member's address and known tags describe, and its parsed address.

    Raises:
        ValueError: One of them is wrong; the text says which, and what is allowed.
    """
    tags = member.tag_values()
    weight = _read_number(tags, "weight", 0, WEIGHT_MAX)
    if tags.get("drain", "false") not in ("true", "false"):
        raise ValueError(f"tag drain={shorten(tags['drain'])} is not true or false")
    port = _read_number(tags, "port", 1, 65535)
    address = read_address(member.address)
    server = Server(
        member.name,
        address.text,
        default_port if port is None else port,
        0 if tags.get("drain") == "true" else weight,
    )
    return server, address


def read_running(key: Key, endpoint: str, weight: int) -> Server:
    """Return the server that HAProxy runs.

    Raises:
        ValueError: The server is not at an IP address and a port.
    """
    address, port = split_endpoint(endpoint)
    service, name = key
    return Server(name, read_address(address).text, int(port), None if weight == 1 else weight, service)


def read_weight(member: Member) -> int | None:
    """Return the weight that a member has when it is not drained; None for HAProxy's default."""
    try:
        return _read_number(member.tag_values(), "weight", 0, WEIGHT_MAX) or None
    except ValueError:
        return None


def _read_number(tags: Mapping[str, str], key: str, low: int, high: int) -> int | None:
    if key not in tags:
        return None
    text = tags[key]
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and low <= int(text) <= high):
        raise ValueError(f"tag {key}={shorten(text)} is not a whole number from {low} to {high}")
    return int(text)
