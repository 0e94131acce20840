"""Servers, and how an address and a member's claim become one. Pure."""

from typing import NamedTuple

from serf_haproxy.policy.address import HostAddress, read_address
from serf_haproxy.policy.claim import Claim
from serf_haproxy.services import DEFAULT_SERVICE, Key
from serf_haproxy.system.network import format_endpoint, split_endpoint

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
        version: The version of its application, "" for none.
        is_backup: Whether it serves only while no other server of the service is up.
    """

    name: str
    address: str
    port: int
    weight: int | None
    service: str = DEFAULT_SERVICE
    check_interval_s: int = 1
    down_interval_ms: int = FASTEST_MS
    version: str = ""
    is_backup: bool = False

    @property
    def key(self) -> Key:
        """The names of its service and its node."""
        return self.service, self.name

    @property
    def endpoint(self) -> str:
        """Address and port in HAProxy's notation: an IPv6 address is in brackets."""
        return format_endpoint(self.address, self.port)


def make_server(name: str, service: str, claim: Claim, address: HostAddress, default_port: int) -> Server:
    """Return the server that an address and the claim of a member with this name describe."""
    return Server(
        name,
        address.text,
        default_port if claim.port is None else claim.port,
        0 if claim.is_drained else claim.weight,
        service,
        version=claim.version,
        is_backup=claim.is_backup,
    )


def read_running(key: Key, endpoint: str, weight: int) -> Server:
    """Return the server that HAProxy runs.

    Raises:
        ValueError: The server is not at an IP address and a port.
    """
    address, port = split_endpoint(endpoint)
    service, name = key
    return Server(name, read_address(address).text, int(port), None if weight == 1 else weight, service)
