"""Decisions in the form that tables of tests compare: by name, in the one service that there is."""

from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.config.parse import Line
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.damping import Flap
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone, Snapshot, View
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE


class Context(NamedTuple):
    """What counts beside the node files, by name."""

    connection_counts: Mapping[str, int] = {}
    known: Mapping[str, Server] = {}
    flaps: Mapping[str, Flap] = {}
    unfit: Mapping[str, Gone] = {}
    serving: frozenset[str] = frozenset()
    down: frozenset[str] | None = None

    def to_snapshot(self, files: Mapping[str, NodeFile], rules: Rules, now_ns: int) -> Snapshot:
        """Return the snapshot of all this."""
        return Snapshot(
            at_ns=now_ns,
            rules=rules,
            files=files,
            flaps=self.flaps,
            unfit={(DEFAULT_SERVICE, name): gone for name, gone in self.unfit.items()},
            published={
                (DEFAULT_SERVICE, name): Line(server.endpoint, 1 if server.weight is None else server.weight, ())
                for name, server in self.known.items()
            },
            view=View(
                {(DEFAULT_SERVICE, name): count for name, count in self.connection_counts.items()},
                frozenset((DEFAULT_SERVICE, name) for name in self.serving),
                None if self.down is None else frozenset((DEFAULT_SERVICE, name) for name in self.down),
            ),
        )


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


def build(files: Mapping[str, NodeFile], rules: Rules, now_ns: int = 0, context: Context | None = None) -> Result:
    """Return what was decided about these node files."""
    return show(decide((context or Context()).to_snapshot(files, rules, now_ns)), files, now_ns)


def show(decision: Decision, files: Mapping[str, NodeFile], now_ns: int) -> Result:
    """Return a decision by name."""

    def left(state: State) -> dict[str, float]:
        entries = {name: entry for (_, name), entry in decision.entries.items() if entry.state is state}
        return {name: ((entry.until_ns or now_ns) - now_ns) / 1e9 for name, entry in sorted(entries.items())}

    assert decision.entries.keys() == {(DEFAULT_SERVICE, name) for name in files}, "one entry for every node"
    assert decision.servers == tuple(entry.server for entry in decision.entries.values() if entry.server)
    return Result(
        decision.servers,
        {name: entry.reason for (_, name), entry in decision.entries.items() if _is_unfit(entry, files[name])},
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
        decision.flaps,
    )


def _is_unfit(entry: Entry, file: NodeFile) -> bool:
    return entry.state is State.QUARANTINED or (entry.state is State.HELD and file.status == ALIVE)
