"""The connections to the local Serf agent that come back by themselves: one to ask on, one for hints."""

import logging
import time

from serf_haproxy.errors import SerfAway, SerfFault
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.rpc import Connection, Monitor
from serf_haproxy.settings import Settings

log = logging.getLogger("serf-haproxy")

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)


class Link:
    """Asks Serf for its roster and listens for hints, connecting when needed; an outage is a warning, told once.

    Args:
        settings: The settings.
        patience_s: How long an agent that has never answered may take to start before that is worth a warning: the s6
            tree starts it after the resident.
    """

    def __init__(self, settings: Settings, patience_s: float = 10.0) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._monitor: Monitor | None = None
        self._failure_count = 0
        self._is_told = False
        self._patient_until_s = time.monotonic() + patience_s

    def ask(self) -> Roster | None:
        """Return Serf's roster; None when Serf cannot be asked, which changes nothing."""
        try:
            # The monitor first: a change between the two is then a hint, and not lost.
            if self._monitor is None and self._settings.hints:
                self._monitor = Monitor(self._settings)
            if self._connection is None:
                self._connection = Connection(self._settings)
            roster = self._connection.read_roster()
        except SerfFault as error:
            self._drop(error)
            return None
        if self._failure_count:
            log.info("%s", f"Serf answers: {len(roster.members)} members")
        self._failure_count, self._is_told, self._patient_until_s = 0, False, 0.0
        return roster

    def watched(self) -> list[Connection]:
        """Return the open connections; one that turns readable is given to `look`."""
        return [connection for connection in (self._connection, self._monitor) if connection]

    def look(self, connection: Connection) -> bool:
        """Look at a connection that has turned readable; return whether to ask Serf at once.

        A connection that broke is dropped; `next_try_s` says when to ask then.
        """
        if connection is self._monitor:
            try:
                return self._monitor.read_hint()
            except SerfFault as error:
                self._drop(error)
        elif connection is self._connection:
            self._drop(SerfFault("Serf closed its RPC connection"))
        return False

    def is_up(self) -> bool:
        """Tell whether Serf answered when it was last asked, and no connection has broken since."""
        return self._connection is not None

    def next_try_s(self) -> float:
        """Return when to ask next, on the monotonic clock, after `ask` returned None or a connection broke."""
        return time.monotonic() + _BACKOFF_S[min(self._failure_count, len(_BACKOFF_S)) - 1]

    def close(self) -> None:
        """Close the connections."""
        for connection in self.watched():
            connection.close()
        self._connection = self._monitor = None

    def _drop(self, fault: SerfFault) -> None:
        """Close the connections because of a fault."""
        self.close()
        is_warning = not isinstance(fault, SerfAway) or time.monotonic() >= self._patient_until_s
        if not self._is_told and (is_warning or not self._failure_count):
            log.log(logging.WARNING if is_warning else logging.INFO, "%s", f"{fault}; what HAProxy has stays as it is")
            self._is_told = is_warning
        self._failure_count += 1
