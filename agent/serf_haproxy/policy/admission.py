"""Which members become servers, and for how long they stay: pure."""

from typing import NamedTuple

from serf_haproxy.policy.address import Bind, Here, check_endpoint
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Claim, Policy, check_claim, check_place
from serf_haproxy.policy.server import Server, read_server
from serf_haproxy.serf.events import Member


class Rules(NamedTuple):
    """Which members become servers.

    Attributes:
        default_port: The port of a server whose node has no tag `port`.
        roles: Roles that become servers; empty means all.
        balancer_roles: Roles that never do.
        self_name: Name of the balancer's own node, "" when not known yet.
        drain_timeout_s: How long a node that left may finish what it is serving, seconds.
        failed_grace_s: How long a node that failed stays under HAProxy's health checks, seconds: gossip may err.
        policy: What members may claim.
        guard: When many that are lost at once stay there for longer.
        flaps: When one that comes and goes is kept out.
        is_sticky: Whether clients stay at their server, between their requests too.
        binds: Address and port of each place where the balancer listens; "" for all its addresses.
        here: What the node files tell of the balancers' own places (`build`).
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
    here: Here = Here()

    def admit(self, member: Member) -> bool:
        """Tell whether a member is one that becomes a server when it is alive and well-formed."""
        return not self.is_balancer(member) and (not self.roles or member.role in self.roles)

    def is_balancer(self, member: Member) -> bool:
        """Tell whether a member balances, as this one does: it never becomes a server."""
        return member.name == self.self_name or member.role in self.balancer_roles

    def read_server(self, member: Member) -> Server:
        """Return the server that a member may have.

        Raises:
            ValueError: Its role is not admitted, or its claim is not what `read_claim` takes.
        """
        if not self.admit(member):
            raise ValueError(f"role {member.role[:40]!a} is none of those that become servers")
        return self.read_claim(member)

    def read_claim(self, member: Member) -> Server:
        """Return the server that a member claims to be, whatever its role.

        Raises:
            ValueError: Its address or a tag is wrong, no server may be there, or policy does not allow it.
        """
        server = read_server(member, self.default_port)
        check_endpoint(self.here, self.policy.networks, server.address, server.port)
        if self.policy.secrets and not member.tags_are_certain():
            raise ValueError("a comma makes its tags uncertain: its proof waits for Serf's roster")
        check_claim(self.policy, Claim(server.name, server.address, server.port, member.tag_values()))
        return server

    def allows(self, server: Server) -> bool:
        """Tell whether policy still allows a server where it is."""
        try:
            check_endpoint(self.here, self.policy.networks, server.address, server.port)
            check_place(self.policy, server.address, server.port)
        except ValueError:
            return False
        return True
