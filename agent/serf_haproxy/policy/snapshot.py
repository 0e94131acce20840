"""What a pass has read, frozen: the input of the decision. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.damping import Flap
from serf_haproxy.policy.orders import Orders
from serf_haproxy.policy.pace import Checks
from serf_haproxy.policy.peers import Peers
from serf_haproxy.policy.server import Server
from serf_haproxy.serf.nodes import NodeFile, Stray
from serf_haproxy.serf.roster import Roster
from serf_haproxy.services import Key
from serf_haproxy.services.file import Services

DOWN, STARTING, UP, STOPPING = range(4)  # srv_op_state of HAProxy's `show servers state`


class Seen(NamedTuple):
    """A server as the running HAProxy has it.

    Attributes:
        endpoint: Address and port as HAProxy's configuration writes them.
        weight: The weight in use.
        is_maintained: Whether it is in maintenance: it gets no new connection.
        is_drained: Whether it is in HAProxy's own drain, which an administrator sets; not by its weight.
        is_unwatched: Whether its health checks are switched off.
        operation: One of DOWN, STARTING, UP, STOPPING.
        unchanged_s: Time since the last state change, for example into maintenance; whole seconds.
        connection_count: Connections in use.
        line: Its line in the format of a server state file.
        id: Its id; 0 where HAProxy did not report it.
        is_checked: Whether it has health checks.
    """

    endpoint: str
    weight: int
    is_maintained: bool
    is_drained: bool
    is_unwatched: bool
    operation: int
    unchanged_s: int
    connection_count: int
    line: str
    id: int = 0
    is_checked: bool = True

    @property
    def is_set_aside(self) -> bool:
        """Whether an administrator has taken the server or its health checks out of service."""
        return self.is_maintained or self.is_drained or self.is_unwatched

    @property
    def is_serving(self) -> bool:
        """Whether a client that sticks to it still reaches it."""
        return self.operation != DOWN and not self.is_maintained


class Running(NamedTuple):
    """What HAProxy's newest worker runs.

    Attributes:
        description: The `description` of its configuration, "" without one.
        servers: Its servers by section and name; None where no socket tells.
        header: The line that names the columns of a server state file, "" where no socket tells.
        is_open: Whether the runtime socket answers: without it servers can be read, but not changed.
    """

    description: str
    servers: Mapping[Key, Seen] | None
    header: str
    is_open: bool


class View(NamedTuple):
    """HAProxy's view of the services' servers.

    Attributes:
        connection_counts: Connections in use, for servers that have any.
        serving: Servers that HAProxy has and does not consider down.
        down: Servers that HAProxy's health checks consider down; None when HAProxy was not asked or did not answer.
        up: Servers that HAProxy considers up, and their addresses and ports; None when `down` is None.
        unchecked: Those of them that have no health checks.
        known: All servers that HAProxy has; None when that is not known.
        idle: Those that are up and get no new request: drained, with weight 0, or stopping by the word of their checks
            or their agent.
        places: For each of `known`, section and name of the server in HAProxy that counts for it.
    """

    connection_counts: Mapping[Key, int] = {}
    serving: frozenset[Key] = frozenset()
    down: frozenset[Key] | None = None
    up: Mapping[Key, str] | None = None
    unchecked: frozenset[Key] = frozenset()
    known: frozenset[Key] | None = None
    idle: frozenset[Key] = frozenset()
    places: Mapping[Key, Key] = {}


class Gone(NamedTuple):
    """A former server, and when it was lost, nanoseconds since the epoch."""

    server: Server
    at_ns: int


class Known(NamedTuple):
    """What is remembered of a server.

    Attributes:
        server: The server as it was last decided.
        was_up: Whether HAProxy has seen it up at this address and port.
        is_served: Whether the last decision had it; else it is remembered while its member has a node file.
    """

    server: Server
    was_up: bool
    is_served: bool


class Snapshot(NamedTuple):
    """What a pass has read.

    Attributes:
        at_ns: The time, nanoseconds since the epoch.
        rules: Which members become servers of the default service.
        files: Node files by name, after the roster's corrections.
        strays: Other files in the node directory.
        roster: What Serf said; None when it was not asked or did not answer.
        flaps: The memory of nodes that failed, by service and name.
        unfit: The memory of servers whose members cannot be servers any more (`Decision.unfit`).
        refused: Servers that HAProxy refused, with its words.
        checks: How often servers were checked as of the last pass.
        known: Servers of this decision's predecessors, which the state directory keeps (`Decision.known`).
        view: HAProxy's view.
        running: What HAProxy runs; None when it does not answer.
        live: The text of the published configuration; None when there is none.
        template: The text of the present template; None when it cannot be read.
        template_fault: Why it cannot be read.
        further_rules: Which members become servers of the services that the operator has named.
        services: The services, and the faults of the services file.
        peers: The balancers that share tables of sticky clients; none where no service has a table.
        orders: The operators' orders that have effect.
    """

    at_ns: int
    rules: Rules
    files: Mapping[str, NodeFile]
    strays: Sequence[Stray] = ()
    roster: Roster | None = None
    flaps: Mapping[Key, Flap] = {}
    unfit: Mapping[Key, Gone] = {}
    refused: Mapping[Key, tuple[Server, str]] = {}
    checks: Checks = Checks()
    known: Mapping[Key, Known] = {}
    view: View = View()
    running: Running | None = None
    live: str | None = None
    template: str | None = None
    template_fault: str = ""
    further_rules: tuple[Rules, ...] = ()
    services: Services = Services()
    peers: Peers = Peers()
    orders: Orders = Orders()

    def is_up(self, server: Server) -> bool:
        """Return whether HAProxy sees a server up where it is; without HAProxy's view, whether it ever did."""
        up = self.view.up
        if up is None:
            return self.has_been_up(server)
        seen = up.get((server.service, server.name))
        return seen is not None and seen == server.endpoint

    def has_been_up(self, server: Server) -> bool:
        """Return whether HAProxy has ever seen a server up where it is."""
        key, up = (server.service, server.name), self.view.up
        known = self.known.get(key)
        if known is not None and known.was_up and known.server[1:3] == server[1:3]:
            return True
        return up is not None and key in up and up[key] == server.endpoint

    def stands(self, server: Server) -> bool:
        """Return whether a server can serve as far as known: it gets new clients, and HAProxy sees it up."""
        return server.weight != 0 and server.key not in self.view.idle and self.is_up(server)
