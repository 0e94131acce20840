"""Early hints of the local Serf agent: its log says that a member comes or goes long before it passes the event."""

from serf_haproxy.errors import SerfFault
from serf_haproxy.serf.events import name_fault
from serf_haproxy.serf.listing import decode
from serf_haproxy.serf.rpc import Connection, RpcAddress
from serf_haproxy.serf.wire import BROKEN

_LEAVING_COUNT = 10_000  # more members than ever leave between two events


class Monitor(Connection):
    """A connection on which the Serf agent sends its log lines as it writes them.

    They are the only early sign of a change: the Serf agent logs a join some 10 ms after it happened, and holds the
    event back for one to three seconds. It logs that a member is about to leave with level debug only, once for each
    time that it hears so; the first line is the news. A line is text, and any node may choose its own name: it is a
    hint to ask the Serf agent about that member, never evidence.
    """

    def __init__(self, address: RpcAddress) -> None:
        super().__init__(address)
        self._leaving: set[bytes] = set()
        self._exchange("monitor", {"LogLevel": "debug"})
        self._socket.setblocking(False)

    def read_hint(self) -> frozenset[str]:
        """Read once, without waiting; return the names of the members of which log lines announce a change.

        "" stands for a name that cannot be read or written down. What is left unread makes the connection readable
        again.

        Raises:
            SerfFault: The Serf agent has gone or breaks its protocol; the connection is closed.
        """
        names = set()
        try:
            for message in self._wire.read_present():
                if not isinstance(message, dict):
                    raise TypeError(f"it has {type(message).__name__}, not a map")
                line = message.get(b"Log")
                if isinstance(line, bytes) and (name := self._find_news(line)) is not None:
                    names.add(name)
        except (OSError, *BROKEN) as error:
            self.close()
            raise SerfFault(f"Serf's RPC at {self._name} broke off its log: {error}") from error
        except SerfFault:
            self.close()
            raise
        return frozenset(names)

    def _find_news(self, line: bytes) -> str | None:
        """Return the name of the member that a line is about; None where it announces no change."""
        _, is_event, rest = line.partition(b" serf: EventMember")
        if is_event:
            self._leaving.clear()  # a member that has left may come back and leave again
            return _clean(rest.partition(b": ")[2].partition(b" ")[0])
        _, is_leave, name = line.partition(b" serf: messageLeaveType: ")
        if not is_leave or name in self._leaving or len(self._leaving) >= _LEAVING_COUNT:
            return None
        self._leaving.add(name)
        return _clean(name.strip())


def _clean(raw: bytes) -> str:
    """Return a member's name as text; "" for one that cannot name a node file."""
    name = decode(raw)
    return "" if name_fault(name) else name
