"""The decision's values: one entry for every node and service. Pure."""

import enum
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.damping import Flap
from serf_haproxy.policy.orders import Order
from serf_haproxy.policy.pace import Checks
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone, Known
from serf_haproxy.services import Key


class State(enum.StrEnum):
    """What was decided about a node in a service."""

    SERVING = "serving"  # it gets requests
    DRAINING = "draining"  # present clients stay, new ones go elsewhere
    GRACE = "grace"  # it failed in Serf a moment ago and stays under HAProxy's health checks
    HELD = "held"  # it was lost together with many others and stays under HAProxy's health checks
    LAST = (
        "last"  # it leaves, drains or is lost, but no other server can serve: it gets requests while HAProxy sees it up
    )
    DAMPED = "damped"  # it failed and returned too often
    QUARANTINED = "quarantined"  # it is alive and cannot be a server, or HAProxy refuses it
    IGNORED = "ignored"  # it is a balancer, or its role is not one that serves
    STOPPED = "stopped"  # an operator's order takes it out of service
    GONE = "gone"  # it left or failed


class Entry(NamedTuple):
    """What was decided about one node in one service.

    Attributes:
        state: The state.
        reason: Why, in words.
        server: The server that HAProxy should have for it; None for none.
        since_ns: When the state began as far as known, nanoseconds since the epoch.
        until_ns: When the state ends without news, nanoseconds since the epoch; None when it does not.
        cause: Which rule decided.
        order: The operator's order that is the reason; None for none.
    """

    state: State
    reason: str
    server: Server | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    cause: Cause = Cause.OTHER
    order: Order | None = None

    @property
    def outline(self) -> str:
        """The state, with the server's address and weight where it has one."""
        server = self.server
        weight = "" if server is None or server.weight is None else f" weight {server.weight}"
        return str(self.state) if server is None else f"{self.state} {server.endpoint}{weight}"


UNKNOWN = "unknown"  # the outline before a first entry


def tell_change(was: str, entry: Entry | None) -> tuple[str, str] | None:
    """Return what has become of a node in a service, and why; None where nothing has.

    Args:
        was: The outline of its entry before; UNKNOWN where there was none.
        entry: Its entry now; None where it has none any more.
    """
    if entry is None:
        return f"{was} -> forgotten", "Serf has no such node"
    return None if was == entry.outline else (f"{was} -> {entry.outline}", entry.reason)


class Decision(NamedTuple):
    """What follows from a snapshot.

    Attributes:
        entries: One for every node and each service that it offers or was in, and for a last server whose node file is
            gone.
        notable: Those entries that are not simply serving.
        servers: The servers that HAProxy should have, sorted by service and name.
        flaps: What to remember of nodes that failed, by service and name.
        unfit: Servers whose members are alive or failed but cannot be servers any more. No node file tells what they
            were and since when, so this is to be remembered.
        known: What is to be remembered of these servers, and of those before whose members still have a node file.
        changes_in_s: After how many seconds the decision may change without news; None for never.
        checks: How often servers are to be checked, to be remembered.
    """

    entries: dict[Key, Entry]
    notable: dict[Key, Entry]
    servers: tuple[Server, ...]
    flaps: Mapping[Key, Flap]
    unfit: dict[Key, Gone]
    known: Mapping[Key, Known]
    changes_in_s: float | None
    checks: Checks = Checks()

    def find(self, state: State) -> dict[Key, Entry]:
        """Return the entries of one state other than serving."""
        return {key: entry for key, entry in self.notable.items() if entry.state is state}


def list_versions(measured: Mapping[str, bool], decision: Decision) -> dict[str, dict[str, str]]:
    """Return the services with measured weights; for one that is split, the versions of its servers by name."""
    versions: dict[str, dict[str, str]] = {service: {} for service in measured}
    for server in decision.servers if any(measured.values()) else ():
        if measured.get(server.service):
            versions[server.service][server.name] = server.version
    return versions
