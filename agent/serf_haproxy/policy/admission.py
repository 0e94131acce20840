"""Which members become servers: roles, addresses, ports and proofs. Pure."""

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.policy.address import (
    Bind,
    Here,
    HostAddress,
    check_announced,
    check_endpoint,
    locate,
    read_address,
    shorten,
)
from serf_haproxy.policy.cause import Cause, Refusal
from serf_haproxy.policy.claim import Claim, list_offers, read_announced, read_claim, tag_of
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Offer, Secret, check_proof
from serf_haproxy.policy.server import Server, make_server
from serf_haproxy.serf.events import ALIVE, Member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.system.network import Network, PortRange


class Policy(NamedTuple):
    """What members may claim.

    Attributes:
        networks: Where servers may be; empty: anywhere.
        ports: First and last port of each range that servers may have; empty: all.
        secrets: Each of them makes a valid proof; empty: no proof is needed.
        networks_from: Where the operator has said which networks.
        ports_from: Where the operator has said which ports.
        addr_networks: Where servers may be that members announce by a tag `addr`; empty: nowhere.
        addr_networks_from: Where the operator has said which of these networks.
    """

    networks: tuple[Network, ...] = ()
    ports: tuple[PortRange, ...] = ()
    secrets: tuple[Secret, ...] = ()
    networks_from: str = "SERF_HAPROXY_NETWORKS"
    ports_from: str = "SERF_HAPROXY_PORTS"
    addr_networks: tuple[Network, ...] = ()
    addr_networks_from: str = "SERF_HAPROXY_ADDR_NETWORKS"


class Rules(NamedTuple):
    """Which members become servers of a service, and how long they stay.

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
        service: The service's name.
        are_named: Whether the operator has named services: only then do the tags `svc.NAME` count.
        split: The share of each version of the service, percent; empty where versions do not matter.
        measured_by: HAProxy's algorithm where the service has measured weights, which need room below the members' own;
            "" where it has not.
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
    service: str = DEFAULT_SERVICE
    are_named: bool = False
    split: tuple[tuple[str, int], ...] = ()
    measured_by: str = ""

    @property
    def shares(self) -> Mapping[str, int]:
        """The share of each version, percent; empty where versions do not matter."""
        return dict(self.split)

    @property
    def gives_weights(self) -> bool:
        """Whether servers get other weights than their members ask for."""
        return bool(self.split or self.measured_by)

    def has_share(self, server: Server) -> bool:
        """Return whether a server may get requests: the operator gives its version a share, or splits nothing."""
        return not self.split or self.shares.get(server.version, 0) > 0

    def admit(self, member: Member) -> bool:
        """Return whether a member offers the service and has a role that becomes a server."""
        has_role = not self.roles or member.role in self.roles
        return has_role and not self.is_balancer(member) and self.is_offered(member)

    def is_offered(self, member: Member) -> bool:
        """Return whether a member offers the service, in whatever role."""
        return not self.are_named or self.service in list_offers(member)

    def is_balancer(self, member: Member) -> bool:
        """Return whether a member is a balancer, which never becomes a server."""
        return member.name == self.self_name or member.role in self.balancer_roles

    def read_server(self, member: Member) -> Server:
        """Return the server that a member may have.

        Raises:
            Refusal: It does not offer the service, its role is not admitted, or `read_claim` refuses its claim.
        """
        if not self.admit(member):
            if not self.is_offered(member):
                raise Refusal(Cause.NOT_OFFERED, "it does not offer this service any more")
            raise Refusal(Cause.ROLE, f"role {shorten(member.role)} is none of those that become servers")
        return self.read_claim(member)

    def read_claim(self, member: Member) -> Server:
        """Return the server that a member claims to have, whatever its role.

        Raises:
            Refusal: Its address or a tag is wrong, no server may be there, or the policy forbids it.
        """
        cause = Cause.TAG
        try:
            claim, announced = self.find_claim(member), read_announced(member)
            cause = Cause.ADDRESS
            own = read_address(member.address)
            address = announced or own
            server = make_server(member.name, self.service, claim, address, self.default_port)
            if address.text == own.text:
                check_endpoint(self.here, self.policy.networks, address, server.port, member.name)
            else:
                check_announced(self.here, address, server.port, member.name)
                check_elsewhere(self.policy, address)
            cause = Cause.PROOF
            if self.policy.secrets and not member.tags_are_certain():
                raise ValueError("a comma makes its tags ambiguous: its proof waits for Serf's roster")
            check_place(self.policy, address, server.port)
            if self.policy.secrets:
                offer = self._find_offer(claim, member)
                check_proof(self.policy.secrets, member.name, own.text, member.tag_values(), offer)
        except Refusal:
            raise
        except ValueError as error:
            raise Refusal(cause, str(error)) from error
        return server

    def find_claim(self, member: Member) -> Claim:
        """Return what a member says of itself in the service; raise ValueError where that is wrong."""
        return read_claim(member, self.service, self.are_named)

    def _find_offer(self, claim: Claim, member: Member) -> Offer | None:
        """Return what a proof has to cover; None for the short form of the default service."""
        tag = tag_of(self.service)
        is_tagged = self.are_named and tag in member.tag_values()
        return Offer(self.service, tag, claim.signed) if is_tagged else None

    def allows(self, server: Server, member: Member | None = None, is_last: bool = False) -> bool:
        """Return whether a server that was accepted may stay where it is.

        Args:
            server: The server.
            member: What its member says now; None where that does not matter.
            is_last: Whether no other server can serve: then a setting that excludes its address or port may be wrong.
        """
        try:
            address = read_address(server.address)
            check_endpoint(self.here, self.policy.networks, address, server.port, server.name)
            if not is_last:
                check_place(self.policy, address, server.port)
            if member is not None and _is_announced(member, address):
                check_elsewhere(self.policy, address)
        except ValueError:
            return False
        return True

    def locate(self, files: Mapping[str, NodeFile]) -> Here:
        """Return what is known of the balancers' own addresses.

        What a balancer says of itself can exclude servers of other members, so it needs a proof where servers need one.
        This balancer's own node needs none, and its address is remembered when Serf forgets it.
        """
        addresses = {}
        for name, file in files.items():
            member = file.member
            if file.status == ALIVE and self.is_balancer(member):
                with contextlib.suppress(ValueError):
                    address = read_address(member.address)
                    if self.policy.secrets and name != self.self_name:
                        check_proof(self.policy.secrets, name, address.text, member.tag_values())
                    addresses[name] = address
        own = None
        with contextlib.suppress(ValueError):
            own = read_address(self.self_address) if self.self_address else addresses.get(self.self_name)
        return locate(self.binds, own, {name: address.text for name, address in addresses.items()}, self.local)


def check_elsewhere(policy: Policy, address: HostAddress) -> None:
    """Return when the policy allows members to announce an address that is not their own.

    Raises:
        Refusal: It does not; the text says which setting could.
    """
    if not any(address.faces[0][0] in network for network in policy.addr_networks):
        allowed = "in none of the networks that" if policy.addr_networks else "allowed nowhere:"
        remedy = "allows" if policy.addr_networks else "has to name its network"
        what = f"tag addr={address.text} leads to another address than the node's own, which is"
        raise Refusal(Cause.NETWORK, f"{what} {allowed} {policy.addr_networks_from} {remedy}")


def check_place(policy: Policy, address: HostAddress, port: int) -> None:
    """Return when the policy allows an address and port.

    Raises:
        Refusal: It does not; the text says which of the two is wrong and which setting forbids it.
    """
    if policy.networks and not any(address.faces[0][0] in network for network in policy.networks):
        raise Refusal(
            Cause.NETWORK, f"address {address.text} is in none of the networks that {policy.networks_from} allows"
        )
    if policy.ports and not any(low <= port <= high for low, high in policy.ports):
        raise Refusal(Cause.PORT, f"port {port} is in none of the ranges that {policy.ports_from} allows")


def _is_announced(member: Member, address: HostAddress) -> bool:
    """Return whether a member is at an address by its tag `addr` alone."""
    with contextlib.suppress(ValueError):
        announced = read_announced(member)
        return announced is not None and announced.text == address.text != read_address(member.address).text
    return False
