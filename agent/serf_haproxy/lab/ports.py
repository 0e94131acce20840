"""Who listens where: every address is in 127.0.0.0/8, and the port numbers are the same on each of them."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from serf_haproxy.errors import InputError, SystemFault

BASE = 18080
BALANCER_COUNT = 9
_BALANCER = re.compile(r"lb([1-9])")


class Ports(NamedTuple):
    """The port numbers of one lab; two labs whose bases are ten or more apart do not meet."""

    frontend: int
    stats: int
    balancer_rpc: int
    gossip: int
    app: int
    backend_rpc: int


class Listener(NamedTuple):
    """Something that will listen: on TCP, and for `is_udp` on UDP as well."""

    what: str
    address: str
    port: int
    is_udp: bool = False


def number_ports(base: int) -> Ports:
    """Return the ports of a lab.

    Raises:
        InputError: They do not fit between 1 and 65535.
    """
    if not 1 <= base <= 65530:
        raise InputError(f"--port-base {base}: must be 1 to 65530, and 1024 or more for an ordinary user")
    return Ports(*range(base, base + 6))


def is_balancer(name: str) -> bool:
    """Tell whether a name is a balancer's: lb1 to lb9."""
    return _BALANCER.fullmatch(name) is not None


def address_balancer(name: str) -> str:
    """Return the address of a balancer.

    Raises:
        InputError: The name is not a balancer's.
    """
    match = _BALANCER.fullmatch(name)
    if not match:
        raise InputError(f"balancer {name!a}: must be one of lb1 to lb{BALANCER_COUNT}")
    return f"127.0.0.{match[1]}"


def address_backend(number: int) -> str:
    """Return the address of the backend that is the `number`th of all, from 1: 127.0.1.1, 127.0.1.2, ..."""
    net, host = divmod(number - 1, 254)
    return f"127.0.{net + 1}.{host + 1}"


def read_address(text: str) -> str:
    """Return an address that a backend may have.

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
    """See that nobody listens yet where we shall.

    Raises:
        InputError: Two of the listeners want the same port.
        SystemFault: A port is taken, or an address cannot be used.
    """
    wanted: dict[tuple[str, int], str] = {}
    for what, address, port, is_udp in listeners:
        other = wanted.setdefault((address, port), what)
        if other is not what:
            raise InputError(f"{other} and {what} both want {address}:{port}; choose another port for one")
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) if is_udp else (socket.SOCK_STREAM,):
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # Connections that have ended do not count, as they do not for those who will listen.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    remedy = "free it, or choose another port"
                    raise SystemFault(f"{what}: {address}:{port}: {error.strerror}; {remedy}") from error
