"""The balancers that share the tables of sticky clients. Pure.

HAProxy learns its peers only from its file, so each change of this set takes a reload. A balancer therefore joins the
set only when it has been there for some seconds, and one that left or failed stays in it for long: a peer that does
not answer costs nothing, and when it comes back no reload is needed.

What a peer says gets into our table, and it learns the addresses of clients. So a peer needs a proof. Where no proofs
are required, a balancer has only itself as a peer: that keeps its own table through reloads.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from serf_haproxy.policy.address import HostAddress, read_address
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.proof import Secret, check_proof
from serf_haproxy.serf.events import ALIVE, FAILED, LEAVING, name_fault
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services.service import Peer
from serf_haproxy.system.network import format_endpoint

SETTLE_S = 5.0  # balancers that start together take one reload, not one each
LEFT_S, FAILED_S = 600.0, 6 * 3600.0
_MOST = 32  # holders of the secret may make any number
_LOOPBACK = "127.0.0.1"
_THERE = (ALIVE, LEAVING)


class Peers(NamedTuple):
    """The balancers that share tables.

    Attributes:
        listed: This balancer, then all others, sorted by name; empty while this balancer's name or address is unknown.
        changes_in_s: After how many seconds they may change without news; None for never.
        fault: Why there are none, "" where there are.
    """

    listed: tuple[Peer, ...] = ()
    changes_in_s: float | None = None
    fault: str = ""

    @property
    def others(self) -> dict[str, str]:
        """The endpoints of the other balancers, by name."""
        return {peer.name: peer.endpoint for peer in self.listed if not peer.is_self}

    @property
    def said(self) -> str:
        """What becomes of a table of sticky clients, in words."""
        if not self.listed:
            return f"shared with no balancer, and lost by a reload: {self.fault}"
        others = ", ".join(self.others)
        return f"shared with {others}" if others else "kept through reloads, shared with no other balancer"


def find_peers(rules: Rules, files: Mapping[str, NodeFile], before: Mapping[str, str], port: int, at_ns: int) -> Peers:
    """Return the balancers that share tables.

    Args:
        rules: Those of the default service.
        files: Node files by name.
        before: The endpoints of the other balancers as of the last pass, by name.
        port: The port at which each of them listens.
        at_ns: The time, nanoseconds since the epoch.
    """
    own = _read_address(rules.self_address)
    if not rules.self_name or name_fault(rules.self_name) or own is None:
        return Peers(fault="Serf has not said yet which node this balancer is, and where")
    if not (own.is_loopback or own.text in rules.local):
        where = f"its address {own.text} in Serf is none of this machine (NAT?)"
        return Peers(fault=f"{where}, so no other balancer could reach it; let Serf advertise one of this machine")
    others: dict[str, str] = {}
    times_s: list[float] = []
    read = ((name, file, _read_balancer(rules, name, file)) for name, file in files.items())
    found = [(name, file, address) for name, file, address in read if address and address.text != own.text]
    for name, file, address in sorted(found, key=lambda one: (one[1].status not in _THERE, one[0])):
        endpoint = format_endpoint(address.text, port)
        is_peer, changes_in_s = _judge(file, before.get(name) == endpoint, at_ns)
        if is_peer and endpoint not in others.values() and len(others) < _MOST:
            others[name] = endpoint
        times_s += [changes_in_s] if changes_in_s else []
    # Where there can be no others, only this balancer's own next worker has to reach it. The first other one must not
    # change the address: an old worker teaches the new one at the address that it knows.
    host = own.text if rules.policy.secrets or own.is_loopback else _LOOPBACK
    this = Peer(rules.self_name, format_endpoint(host, port), is_self=True)
    listed = (this, *(Peer(name, others[name]) for name in sorted(others)))
    return Peers(listed, min(times_s, default=None))


def list_others(files: Mapping[str, NodeFile], roles: Collection[str], self_name: str) -> dict[str, NodeFile]:
    """Return the node files of the other balancers by name, whatever their status.

    Args:
        files: Node files by name.
        roles: The roles of balancers.
        self_name: The name of this balancer's node.
    """
    return {name: file for name, file in files.items() if file.member.role in roles and name != self_name}


def has_proved(secrets: Sequence[Secret], name: str, file: NodeFile) -> bool:
    """Return whether a node has a proof that one of the secrets made."""
    address = _read_address(file.member.address)
    if address is None or not file.member.tags_are_certain():
        return False
    try:
        check_proof(secrets, name, address.text, file.member.tag_values())
    except ValueError:
        return False
    return True


def _judge(file: NodeFile, was_peer: bool, at_ns: int) -> tuple[bool, float | None]:
    """Return whether a balancer is a peer, and after how many seconds that changes without news; None for never."""
    age_s = (at_ns - file.mtime_ns) / 1e9
    if age_s < 0:  # the clock was set back, and nothing tells by how much
        age_s = SETTLE_S
    if file.status in _THERE:
        is_peer = was_peer or age_s >= SETTLE_S
        return is_peer, None if is_peer else SETTLE_S - age_s
    left_s = (FAILED_S if file.status == FAILED else LEFT_S) - age_s
    is_peer = was_peer and left_s > 0
    return is_peer, left_s if is_peer else None


def _read_balancer(rules: Rules, name: str, file: NodeFile) -> HostAddress | None:
    """Return the address of another balancer that has proved itself; None for any other member."""
    member = file.member
    if name == rules.self_name or not rules.policy.secrets or not rules.is_balancer(member):
        return None
    return _read_address(member.address) if has_proved(rules.policy.secrets, name, file) else None


def _read_address(text: str) -> HostAddress | None:
    with contextlib.suppress(ValueError):
        return read_address(text)
    return None
