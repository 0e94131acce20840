"""Decisions in the form that tables of tests compare: by name, in the one service that there is."""

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.damping import Flap
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone, Known, Snapshot, View
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE


class Context(NamedTuple):
    """What counts beside the node files, by name.

    Attributes:
        connection_counts: HAProxy's connections.
        known: What is remembered of servers; a server alone was decided last.
        flaps: The memory of nodes that failed.
        unfit: The memory of unfit members.
        serving: What HAProxy does not consider down, for sticky clients.
        down: What HAProxy considers down; None when it does not answer.
        up: What it considers up; all of `known` that is not down where it is None.
        never_up: Those of `known` that HAProxy has never seen up.
    """

    connection_counts: Mapping[str, int] = {}
    known: Mapping[str, Server | Known] = {}
    flaps: Mapping[str, Flap] = {}
    unfit: Mapping[str, Gone] = {}
    serving: frozenset[str] = frozenset()
    down: frozenset[str] | None = None
    up: frozenset[str] | None = None
    never_up: frozenset[str] = frozenset()

    def to_snapshot(self, files: Mapping[str, NodeFile], rules: Rules, now_ns: int) -> Snapshot:
        """Return the snapshot of all this."""
        known = {
            name: Known(one, name not in self.never_up, True) if isinstance(one, Server) else one
            for name, one in self.known.items()
        }
        servers = {name: one.server for name, one in known.items()}
        up = servers.keys() - (self.down or frozenset()) - self.never_up if self.up is None else self.up
        down = self.down if self.down is not None or self.up is None else frozenset(servers.keys() - up)
        return Snapshot(
            at_ns=now_ns,
            rules=rules,
            files=files,
            flaps={(DEFAULT_SERVICE, name): flap for name, flap in self.flaps.items()},
            unfit={(DEFAULT_SERVICE, name): gone for name, gone in self.unfit.items()},
            known={one.server.key: one for one in known.values()},
            view=View(
                {(DEFAULT_SERVICE, name): count for name, count in self.connection_counts.items()},
                frozenset((DEFAULT_SERVICE, name) for name in self.serving),
                None if down is None else frozenset((DEFAULT_SERVICE, name) for name in down),
                None if down is None else {servers[name].key: servers[name].endpoint for name in up if name in servers},
            ),
        )


def read_servers(files: Mapping[str, NodeFile], rules: Rules) -> dict[str, Server]:
    """Return the servers that all members had while they were alive."""
    servers = {}
    for name, file in files.items():
        with contextlib.suppress(ValueError):
            servers[name] = rules.read_server(file.member)
    return servers


class Result(NamedTuple):
    """A decision by name; times are seconds that are left."""

    servers: tuple[Server, ...]
    quarantined: dict[str, str]
    draining: tuple[str, ...]
    held: dict[str, float]
    damped: dict[str, float]
    changes_in_s: float | None
    unfit: dict[str, Gone]
    flaps: Mapping[str, Flap]
    last: dict[str, str]
    known: Mapping[str, Known]


def build(files: Mapping[str, NodeFile], rules: Rules, now_ns: int = 0, context: Context | None = None) -> Result:
    """Return what was decided about these node files."""
    return show(decide((context or Context()).to_snapshot(files, rules, now_ns)), files, now_ns)


def show(decision: Decision, files: Mapping[str, NodeFile], now_ns: int) -> Result:
    """Return a decision by name."""

    def left(state: State) -> dict[str, float]:
        entries = {name: entry for (_, name), entry in decision.entries.items() if entry.state is state}
        return {name: ((entry.until_ns or now_ns) - now_ns) / 1e9 for name, entry in sorted(entries.items())}

    forgotten = {key for key, entry in decision.entries.items() if entry.state is State.LAST and key[1] not in files}
    listed = {key for key in decision.entries if key[0] == DEFAULT_SERVICE}  # others are only shown
    assert listed - forgotten == {(DEFAULT_SERVICE, name) for name in files}, "one for every node"
    assert list(decision.entries) == sorted(decision.entries)
    assert decision.servers == tuple(entry.server for entry in decision.entries.values() if entry.server)
    return Result(
        decision.servers,
        {name: entry.reason for (_, name), entry in decision.entries.items() if _is_unfit(entry, files.get(name))},
        tuple(
            sorted(
                name
                for (_, name), entry in decision.entries.items()
                if entry.state is State.DRAINING and entry.until_ns is not None
            )
        ),
        left(State.HELD),
        left(State.DAMPED),
        decision.changes_in_s,
        {name: gone for (_, name), gone in decision.unfit.items()},
        {name: flap for (_, name), flap in decision.flaps.items()},
        {name: entry.reason for (_, name), entry in decision.entries.items() if entry.state is State.LAST},
        {name: known for (_, name), known in decision.known.items()},
    )


def _is_unfit(entry: Entry, file: NodeFile | None) -> bool:
    is_held = entry.state is State.HELD and file is not None and file.status == ALIVE
    return entry.state is State.QUARANTINED or is_held
