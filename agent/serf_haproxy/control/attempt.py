"""What applying a configuration needs beside the configuration."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from serf_haproxy.config.commands import close_idle
from serf_haproxy.config.diff import Changes
from serf_haproxy.config.parse import Layout, Line, Parser
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.outcome import NO_PAUSE, Patience, Pause
from serf_haproxy.control.state import parse_served
from serf_haproxy.policy.claim import find_place
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.snapshot import Running, Snapshot
from serf_haproxy.services import Key

_LEARNING_S = 1.0


class Attempt(NamedTuple):
    """What applying a configuration needs beside the configuration.

    Attributes:
        edges: Where to act.
        running: What HAProxy runs; None when it does not answer.
        live: The text of the published configuration; None when there is none.
        parser: Reads it.
        on_step: Called with the name of each step that has ended.
        pause: How long there must not be a reload.
        patience: How long a reload waits for a frozen worker.
        left: Servers whose difference a reload has not ended, with its signature (`config.diff.sign`).
        list_decided: Returns the servers that were decided, and whether each is new or elsewhere than before.
        emptied: Servers in maintenance whose idle connections have been closed, kept from pass to pass.
        measured: The sections with measured weights, and whether a split shares their requests.
        hastened: The servers that HAProxy was given ahead of this pass.
        unpublished: The lines of servers that run otherwise than they should and than the published file says.
        ordered: Why there is to be a reload although nothing needs one; "" where there is not.
    """

    edges: Edges
    running: Running | None
    live: str | None
    parser: Parser
    on_step: Callable[[str], object]
    pause: Pause = NO_PAUSE
    patience: Patience = Patience()
    left: Mapping[Key, str] = {}
    list_decided: Callable[[], Mapping[Key, bool]] = dict
    emptied: set[Key] | None = None
    measured: Mapping[str, bool] = {}
    hastened: frozenset[Key] = frozenset()
    unpublished: Mapping[Key, Line] = {}
    ordered: str = ""

    def read_before(self) -> Layout:
        """Return what the published configuration says."""
        layout = self.parser.read_published(self.live or "")
        return layout._replace(measured=self.measured) if self.measured else layout

    def read_known(self) -> Layout:
        """Return the same, with the lines of servers that run otherwise than they should and than it says."""
        layout = self.read_before()
        return layout._replace(servers={**layout.servers, **self.unpublished}) if self.unpublished else layout

    def find_pause(self, rest: str) -> Pause:
        """Return how long a reload to a configuration has to wait: also while the worker still learns its tables."""
        if self.pause.concerns(rest):
            return self.pause
        return Pause(time.monotonic() + _LEARNING_S) if self.edges.runtime.is_learning() else NO_PAUSE

    def list_deletions(self, changes: Changes) -> list[str]:
        """Return the commands that delete servers in maintenance; HAProxy refuses those that still have connections.

        The idle connections of a server are closed once: no further ones come, and HAProxy counts the time of its
        maintenance anew each time, by which the pauses between such passes grow.
        """
        emptied = self.emptied if self.emptied is not None else set()
        commands = [command for key in changes.unused if key not in emptied for command in close_idle(key)]
        emptied.intersection_update(changes.unused)
        emptied.update(changes.unused)
        return [*commands, *changes.deletions]

    def must_wait(self) -> bool:
        """Return whether the worker is frozen and a reload has to wait for it."""
        return self.patience.waited_s < self.patience.limit_s and self.edges.runtime.is_frozen()


def find_new(snapshot: Snapshot, decision: Decision, served: str) -> dict[Key, bool]:
    """Return whether each server is new, or elsewhere than it was.

    Where the memory of servers is lost or damaged, those count as known whose node files were served.
    """
    known, found = snapshot.known, {}
    for server in decision.servers:
        one = known.get(key := server.key)
        found[key] = one is None or not one.is_served or one.server[1:3] != server[1:3]  # address and port
    if True in found.values() and not any(one.is_served for one in known.values()):
        before = {name: member for name, (_, member) in parse_served(served).items()}
        after = {name: file.member for name, file in snapshot.files.items() if name in before}
        for service, name in found:
            if name in after and find_place(before[name], service) == find_place(after[name], service):
                found[service, name] = False
    return found
