"""What the daemon says for the question whether traffic should come here: a file, written where it is new."""

import contextlib
import os
import time

from serf_haproxy.control.edges import Edges
from serf_haproxy.control.outcome import Outcome
from serf_haproxy.control.replies import find_fault
from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy import readiness
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import write_quickly

_PATIENCE_S = 10.0  # a pass may take that long


class Facts:
    """Writes what `haproxy.readiness` needs to know."""

    def __init__(self) -> None:
        self._text = ""
        self._heard_s = -1  # when Serf last answered; -1: the state directory knows

    def write(self, settings: Settings, edges: Edges, snapshot: Snapshot, outcome: Outcome) -> tuple[str, ...]:
        """Write what a pass came to; return complaints."""
        if outcome.has_roster or self._heard_s < 0:
            self._heard_s = int(time.time() if outcome.has_roster else edges.state.read_record().heard_at_s)
        stale = find_fault(snapshot, outcome) or ("" if outcome.is_in_force else outcome.reason)
        try:
            self._write(settings, stale)
        except SystemFault as error:
            return (f"`ready --for traffic` knows nothing of this pass: {error}",)
        return ()

    def tell_failure(self, settings: Settings, text: str) -> None:
        """Write that the last pass ended with an error."""
        with contextlib.suppress(SystemFault):
            self._write(settings, text)

    def _write(self, settings: Settings, stale: str) -> None:
        patience_s = int(2 * settings.resync_interval_s + _PATIENCE_S)
        paths = settings.runtime_socket, settings.master_socket, settings.config_path
        text = readiness.format_facts(paths, max(0, self._heard_s), patience_s, stale)
        if self._text != text:
            write_quickly(os.path.join(settings.answers_dir, "traffic"), text)
            self._text = text
