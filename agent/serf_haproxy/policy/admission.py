"""Which members become servers: roles, addresses, ports and proofs. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.policy.address import Bind, Here, HostAddress, check_endpoint, read_address, shorten
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Secret, check_proof
from serf_haproxy.policy.server import Server, read_server
from serf_haproxy.serf.events import Member
from serf_haproxy.system.network import Network, PortRange


class Policy(NamedTuple):
    """What members may claim.

    Attributes:
        networks: Where servers may be; empty: anywhere.
        ports: First and last port of each range that servers may have; empty: all.
        secrets: Each of them makes a valid proof; empty: no proof is needed.
    """

    networks: tuple[Network, ...] = ()
    ports: tuple[PortRange, ...] = ()
    secrets: tuple[Secret, ...] = ()


class Rules(NamedTuple):
    """Which members become servers, and how long they stay.

    Attributes:
        default_port: The port of a server whose node has no tag `port`.
        roles: Roles that become servers; empty: all.
        balancer_roles: Roles that never become servers.
        self_name: Name of the balancer's own node, "" while it is not known.
        drain_timeout_s: How long a node that left may finish its requests, seconds.
        failed_grace_s: How long a node that failed stays under HAProxy's health checks, seconds: gossip may be wrong.
        policy: What members may claim.
        guard: When servers that are lost together are held.
        flaps: When a node that comes and goes is damped.
        is_sticky: Whether clients stay at their server between their requests.
        binds: Where the balancer listens.
        self_address: The last known address of the balancer's own node, "" for none.
        local: All addresses of this machine.
        check_rate: The most health checks a second, of all servers together.
        here: The balancers' own addresses; `decide` takes them from the node files.
    """

    default_port: int
    roles: tuple[str, ...] = ()
    balancer_roles: tuple[str, ...] = ()
    self_name: str = ""
    drain_timeout_s: float = 0.0
    failed_grace_s: float = 0.0
    policy: Policy = Policy()
    guard: GuardRules = GuardRules()
    flaps: FlapRules = FlapRules()
    is_sticky: bool = False
    binds: tuple[Bind, ...] = ()
    self_address: str = ""
    local: frozenset[str] = frozenset()
    check_rate: float = 400.0
    here: Here = Here()

    def admit(self, member: Member) -> bool:
        """Return whether a member has a role that becomes a server."""
        return not self.is_balancer(member) and (not self.roles or member.role in self.roles)

    def is_balancer(self, member: Member) -> bool:
        """Return whether a member is a balancer, which never becomes a server."""
        return member.name == self.self_name or member.role in self.balancer_roles

    def read_server(self, member: Member) -> Server:
        """Return the server that a member may have.

        Raises:
            ValueError: Its role is not admitted, or `read_claim` refuses its claim.
        """
        if not self.admit(member):
            raise ValueError(f"role {shorten(member.role)} is none of those that become servers")
        return self.read_claim(member)

    def read_claim(self, member: Member) -> Server:
        """Return the server that a member claims to have, whatever its role.

        Raises:
            ValueError: Its address or a tag is wrong, no server may be there, or the policy forbids it.
        """
        server, address = read_server(member, self.default_port)
        check_endpoint(self.here, self.policy.networks, address, server.port)
        if self.policy.secrets and not member.tags_are_certain():
            raise ValueError("a comma makes its tags ambiguous: its proof waits for Serf's roster")
        check_claim(self.policy, member.name, address, server.port, member.tag_values())
        return server

    def allows(self, server: Server) -> bool:
        """Return whether the policy still allows a server where it is."""
        try:
            address = read_address(server.address)
            check_endpoint(self.here, self.policy.networks, address, server.port)
            check_place(self.policy, address, server.port)
        except ValueError:
            return False
        return True


def check_claim(policy: Policy, name: str, address: HostAddress, port: int, tags: Mapping[str, str]) -> None:
    """Return when the policy allows what a member claims.

    Raises:
        ValueError: It does not; the text is printable, and says what is wrong and how to correct it.
    """
    check_place(policy, address, port)
    if policy.secrets:
        check_proof(policy.secrets, name, address.text, tags)


def check_place(policy: Policy, address: HostAddress, port: int) -> None:
    """Return when the policy allows an address and port.

    Raises:
        ValueError: It does not; the text says which of the two is wrong and which setting forbids it.
    """
    if policy.networks and not any(address.faces[0][0] in network for network in policy.networks):
        raise ValueError(f"address {address.text} is in none of the networks that SERF_HAPROXY_NETWORKS allows")
    if policy.ports and not any(low <= port <= high for low, high in policy.ports):
        raise ValueError(f"port {port} is in none of the ranges that SERF_HAPROXY_PORTS allows")
