"""Addresses and port numbers: each part has its own address in 127.0.0.0/8, all use the same port numbers."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from serf_haproxy.errors import InputError, SystemFault

BASE = 18080
BALANCER_COUNT = 9
TCP_COUNT = 4  # services of mode tcp
_FIRST_TCP = 6
_BALANCER = re.compile(r"lb([1-9])")


class Ports(NamedTuple):
    """The port numbers of one lab. Labs whose first port numbers are ten or more apart do not conflict."""

    frontend: int
    stats: int
    balancer_rpc: int
    gossip: int
    app: int
    node_rpc: int

    @property
    def https(self) -> int:
        """The port for clients with TLS on the balancers; at the nodes' addresses it is that of Serf's RPC."""
        return self.node_rpc

    @property
    def page(self) -> int:
        """The port of the page in the browser on the balancers; at the nodes' addresses it is that of applications."""
        return self.app

    @property
    def tcp(self) -> range:
        """The ports of services of mode tcp on the balancers."""
        return range(self.frontend + _FIRST_TCP, self.frontend + _FIRST_TCP + TCP_COUNT)


class Listener(NamedTuple):
    """A TCP port on which a part will listen; with `is_udp`, the UDP port of the same number as well."""

    what: str
    address: str
    port: int
    is_udp: bool = False


def number_ports(base: int) -> Ports:
    """Return the port numbers of a lab; `base` is the first.

    Raises:
        InputError: They are not all between 1 and 65535.
    """
    limit = 65535 - _FIRST_TCP - TCP_COUNT + 1
    if not 1 <= base <= limit:
        raise InputError(f"--port-base {base}: must be 1 to {limit}, and 1024 or more for an ordinary user")
    return Ports(*range(base, base + _FIRST_TCP))


def is_balancer(name: str) -> bool:
    """Return whether a name is that of a balancer: lb1 to lb9."""
    return _BALANCER.fullmatch(name) is not None


def address_balancer(name: str) -> str:
    """Return the address of a balancer.

    Raises:
        InputError: The name is not that of a balancer.
    """
    match = _BALANCER.fullmatch(name)
    if not match:
        raise InputError(f"balancer {name!a}: must be one of lb1 to lb{BALANCER_COUNT}")
    return f"127.0.0.{match[1]}"


def address_node(number: int) -> str:
    """Return the address of a node by its number, from 1 on: 127.0.1.1, 127.0.1.2, ..."""
    net, host = divmod(number - 1, 254)
    return f"127.0.{net + 1}.{host + 1}"


def read_address(text: str) -> str:
    """Return an address of a node in its canonical form.

    Raises:
        InputError: It is not in 127.0.0.0/8.
    """
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise InputError(f"--address {text!a}: must be an address in 127.0.0.0/8; the lab stays on loopback")
    return str(address)


def check_free(listeners: Iterable[Listener]) -> None:
    """Check that all ports of the listeners are free.

    Raises:
        InputError: Two of the listeners use the same port.
        SystemFault: A port is taken, or an address cannot be used.
    """
    wanted: dict[tuple[str, int], str] = {}
    for what, address, port, is_udp in listeners:
        other = wanted.setdefault((address, port), what)
        if other is not what:
            raise InputError(f"{other} and {what} both want {address}:{port}; choose another port for one of them")
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) if is_udp else (socket.SOCK_STREAM,):
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # The port may be in TIME_WAIT: the programs of the lab set this option, too.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    remedy = "free it, or choose another port"
                    raise SystemFault(f"{what}: {address}:{port}: {error.strerror}; {remedy}") from error
