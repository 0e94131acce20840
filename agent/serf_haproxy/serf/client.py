"""The connections to the local Serf agent, made again after a failure: one to ask on, one for hints."""

import logging
import time
from collections.abc import Callable, Collection

from serf_haproxy.errors import SerfAway, SerfFault
from serf_haproxy.serf.hints import Monitor
from serf_haproxy.serf.listing import Members
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.rpc import Connection, RpcAddress

log = logging.getLogger("serf-haproxy")

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)


class Client:
    """Asks the Serf agent for its roster and listens for hints. An outage is logged once.

    Args:
        address: Where the Serf agent's RPC is.
        has_hints: Whether to follow the Serf agent's log.
        patience_s: How long a Serf agent that has never answered may take to start before that is a warning: the s6
            tree starts it after the daemon.
    """

    def __init__(self, address: RpcAddress, has_hints: bool = True, patience_s: float = 10.0) -> None:
        self._address = address
        self._has_hints = has_hints
        self._connection: Connection | None = None
        self._monitor: Monitor | None = None
        self._failure_count = 0
        self._is_told = False
        self._patient_until_s = time.monotonic() + patience_s

    def connect(self) -> bool:
        """Connect where there is no connection; return whether there is one now."""
        try:
            # The monitor first: a change that falls between the two connections is then a hint.
            if self._monitor is None and self._has_hints:
                self._monitor = Monitor(self._address)
            if self._connection is None:
                self._connection = Connection(self._address)
        except SerfFault as error:
            self._drop(error)
        return self._connection is not None

    def ask(self) -> Roster | None:
        """Return the roster; None when the Serf agent does not give it."""
        if not self.connect() or self._connection is None:
            return None
        try:
            roster = self._connection.read_roster()
        except SerfFault as error:
            self._drop(error)
            return None
        if self._failure_count:
            log.info("%s", f"Serf answers: {len(roster.members)} members")
        self._failure_count, self._is_told, self._patient_until_s = 0, False, 0.0
        return roster

    def ask_some(self, names: Collection[str]) -> tuple[int, Members] | None:
        """Return when a few members were asked about, and those that Serf knows; None when it gives no answer."""
        if self._connection is None:
            return None
        try:
            return self._connection.read_some(names)
        except SerfFault as error:
            self._drop(error)
            return None

    def send_event(self, name: str, payload: bytes) -> bool:
        """Send a user event over the connection that there is; return whether the Serf agent took it."""
        return self._tell(lambda connection: connection.send_event(name, payload))

    def force_leave(self, name: str) -> bool:
        """Tell all members that one leaves, over the connection that there is; return whether the Serf agent does."""
        return self._tell(lambda connection: connection.force_leave(name))

    def watched(self) -> list[Connection]:
        """Return the open connections; give one that turns readable to `look`."""
        return [connection for connection in (self._connection, self._monitor) if connection]

    def look(self, connection: Connection) -> frozenset[str]:
        """Read from a connection that turned readable; return the members of which a change is announced.

        A connection that broke is dropped; `next_try_s` then says when to ask.
        """
        if connection is self._monitor:
            try:
                return self._monitor.read_hint()
            except SerfFault as error:
                self._drop(error)
        elif connection is self._connection:
            self._drop(SerfFault("Serf closed its RPC connection"))
        return frozenset()

    def is_up(self) -> bool:
        """Return whether the last exchange succeeded and no connection has broken since."""
        return self._connection is not None

    def next_try_s(self) -> float:
        """Return when to ask again after a failure, on the monotonic clock."""
        return time.monotonic() + _BACKOFF_S[min(self._failure_count, len(_BACKOFF_S)) - 1]

    def close(self) -> None:
        """Close the connections."""
        for connection in self.watched():
            connection.close()
        self._connection = self._monitor = None

    def _tell(self, tell: Callable[[Connection], None]) -> bool:
        """Tell the Serf agent something; return whether it took it."""
        if self._connection is None:
            return False
        try:
            tell(self._connection)
        except SerfFault as error:
            self._drop(error)
            return False
        return True

    def _drop(self, fault: SerfFault) -> None:
        """Close the connections because of a fault."""
        self.close()
        is_warning = not isinstance(fault, SerfAway) or time.monotonic() >= self._patient_until_s
        if not self._is_told and (is_warning or not self._failure_count):
            log.log(logging.WARNING if is_warning else logging.INFO, "%s", f"{fault}; HAProxy keeps its servers")
            self._is_told = is_warning
        self._failure_count += 1
