"""Evidence -> the servers that HAProxy should have: pure.

Node files say what handlers heard, the roster says what Serf's agent knows. The roster corrects the node files,
and the servers follow from the node files alone, so that a directory listing shows all there is to know.
"""

import functools
import ipaddress
import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from serf_haproxy.events import ALIVE, FAILED, LEAVING, LEFT, Member, format_line, unescape

WEIGHT_MAX = 256  # HAProxy's own limit
_CLOCK_S = 5.0  # the coarse clock of the files runs a little behind


class Evidence(Protocol):
    """What a node file tells (`nodes.NodeFile`)."""

    @property
    def status(self) -> str:
        """One of `events.STATUSES`."""

    @property
    def member(self) -> Member:
        """The member."""

    @property
    def mtime_ns(self) -> int:
        """When it was heard, nanoseconds since the epoch."""


class Roster(NamedTuple):
    """What the local Serf agent answered.

    Attributes:
        asked_ns: When it was asked, on the clock of the files' mtimes, nanoseconds since the epoch.
        self_name: The agent's own node name.
        members: Status and member, by name.
        refused: Members that cannot have a node file: a name fit to print, and the reason.
    """

    asked_ns: int
    self_name: str
    members: Mapping[str, tuple[str, Member]]
    refused: tuple[tuple[str, str], ...] = ()


class Rules(NamedTuple):
    """Which members become servers.

    Attributes:
        default_port: The port of a server whose node has no tag `port`.
        roles: Roles that become servers; empty means all.
        balancer_roles: Roles that never do.
        self_name: Name of the balancer's own node, "" when not known yet.
        drain_timeout_s: How long a node that left may finish what it is serving, seconds.
        failed_grace_s: How long a node that failed stays under HAProxy's health checks, seconds: gossip may err.
    """

    default_port: int
    roles: tuple[str, ...] = ()
    balancer_roles: tuple[str, ...] = ()
    self_name: str = ""
    drain_timeout_s: float = 0.0
    failed_grace_s: float = 0.0

    def admit(self, member: Member) -> bool:
        """Tell whether a member is one that becomes a server when it is alive and well-formed."""
        if member.name == self.self_name or member.role in self.balancer_roles:
            return False
        return not self.roles or member.role in self.roles


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


class Pool(NamedTuple):
    """What node files come to.

    Attributes:
        servers: Sorted by name.
        quarantined: Admitted members that are alive and cannot become servers: the reason by name.
        draining: Names of servers that go once their last connection has ended.
        changes_in_s: After how many seconds, without any news, the servers will be others; None for never.
    """

    servers: tuple[Server, ...]
    quarantined: dict[str, str]
    draining: tuple[str, ...] = ()
    changes_in_s: float | None = None


class Corrections(NamedTuple):
    """What the roster puts right.

    Attributes:
        record: Node files to write.
        forget: Node files to remove: the roster no longer has these members.
        held: Names that are missing from the roster and stay, because forgetting them would empty the pool.
    """

    record: tuple[tuple[str, Member], ...]
    forget: tuple[str, ...]
    held: tuple[str, ...]


def build(
    evidence: Mapping[str, Evidence],
    rules: Rules,
    now_ns: int = 0,
    connection_counts: Mapping[str, int] | None = None,
) -> Pool:
    """Return the servers for a set of node files; a node that cannot become one is quarantined alone.

    Args:
        evidence: Node files by name.
        rules: Which members become servers.
        now_ns: The time, nanoseconds since the epoch.
        connection_counts: Connections that HAProxy has to a server, by name.
    """
    counts = connection_counts or {}
    servers = []
    quarantined = {}
    draining = []
    expiries_s = []
    for name in sorted(evidence):
        heard = evidence[name]
        left_s = _time_left_s(heard, rules, now_ns)
        is_leaving = heard.status in (LEAVING, LEFT)
        if left_s <= 0 or not rules.admit(heard.member) or (is_leaving and not counts.get(name)):
            continue
        try:
            server = read_server(heard.member, rules.default_port)
        except ValueError as error:
            quarantined[name] = str(error)
            continue
        servers.append(server._replace(weight=0) if is_leaving else server)
        draining += [name] if is_leaving else []
        expiries_s += [left_s] if heard.status != ALIVE else []
    return Pool(tuple(servers), quarantined, tuple(draining), min(expiries_s, default=None))


def _time_left_s(heard: Evidence, rules: Rules, now_ns: int) -> float:
    """Return for how long a node may still be a server; a clock that was set back ends that at once."""
    if heard.status == ALIVE:
        return math.inf
    span_s = rules.failed_grace_s if heard.status == FAILED else rules.drain_timeout_s
    age_s = (now_ns - heard.mtime_ns) / 1e9
    return span_s - max(0.0, age_s) if age_s >= -_CLOCK_S else 0.0


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


def correct(evidence: Mapping[str, Evidence], roster: Roster, rules: Rules) -> Corrections:
    """Compare node files with a roster; of each node the newer evidence counts.

    A member that the roster does not have is gone, except where that alone would leave no server: an agent that
    has just started alone, or is cut off from everybody, must not empty the pool.
    """
    rules = rules._replace(self_name=roster.self_name)
    older = {name for name, heard in evidence.items() if heard.mtime_ns < roster.asked_ns}
    record = [
        (status, member)
        for name, (status, member) in sorted(roster.members.items())
        if name not in evidence or (name in older and _differ(evidence[name], status, member))
    ]
    absent = sorted(older - roster.members.keys())
    serving = {name for name, heard in evidence.items() if _serves(heard.status, heard.member, rules)}
    listed = any(_serves(status, member, rules) for status, member in roster.members.values())
    losing = serving.intersection(absent)
    held = sorted(losing) if not listed and losing == serving else []
    return Corrections(tuple(record), tuple(name for name in absent if name not in held), tuple(held))


def _serves(status: str, member: Member, rules: Rules) -> bool:
    try:
        return status == ALIVE and rules.admit(member) and bool(read_server(member, rules.default_port))
    except ValueError:
        return False


def _differ(heard: Evidence, status: str, member: Member) -> bool:
    return format_line(heard.status, heard.member) != format_line(status, member)


def _tag(tags: Mapping[str, str], key: str, low: int, high: int) -> int | None:
    if key not in tags:
        return None
    text = tags[key]
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and low <= int(text) <= high):
        raise ValueError(f"tag {key}={_short(text)} is not a whole number from {low} to {high}")
    return int(text)


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")
