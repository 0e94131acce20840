"""The local Serf agent's RPC: the roster, and questions about a few members.

The published clients trust the Serf agent: one member whose tag is not UTF-8 makes every answer unreadable for them,
and an error of the server looks like success. This client reads any bytes, limits the time of every exchange, and
treats anything unexpected as a `SerfFault` that closes the connection.

The wire (Serf's document "RPC Protocol"): MessagePack maps over TCP, a header {Command, Seq} and a body; the
answer is a header {Seq, Error} and, for some commands, a body.
"""

import contextlib
import re
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from serf_haproxy.errors import SerfAway, SerfFault, SerfRefusal, SerfSilence, SystemFault
from serf_haproxy.serf.listing import Listing, Members, Refused, decode
from serf_haproxy.serf.printing import printable
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.wire import BROKEN, Wire
from serf_haproxy.system.files import WRITTEN_BYTES, read_text

_PATIENCE = 4  # judging the members may take this many times the time limit of an exchange
_CLOCK_REALTIME_COARSE = 5  # linux/time.h: the clock that gives files their mtime


class RpcAddress(NamedTuple):
    """How to reach a Serf agent's RPC.

    Attributes:
        host: Host name or IP address.
        port: TCP port.
        auth_path: File with the RPC auth key, "" for no authentication.
        timeout_s: Time limit of one exchange.
    """

    host: str = "127.0.0.1"
    port: int = 7373
    auth_path: str = ""
    timeout_s: float = 5.0


class Connection:
    """One connection to a Serf agent's RPC, past its handshake.

    Raises:
        SerfFault: The Serf agent cannot be reached, refuses us, or breaks its protocol.
    """

    def __init__(self, address: RpcAddress) -> None:
        self._timeout_s = address.timeout_s
        self._name = f"{address.host}:{address.port}"
        self._seq = 0
        self._listing = Listing()
        try:
            self._socket = socket.create_connection((address.host, address.port), self._timeout_s)
        except (OSError, UnicodeError, LookupError) as error:  # the latter two: the host is not a valid name
            reason = getattr(error, "strerror", None) or error
            raise SerfAway(f"Serf's RPC at {self._name} cannot be reached: {reason}") from error
        self._wire = Wire(self._socket, self._name)
        try:
            self._exchange("handshake", {"Version": 1})
            if address.auth_path:
                self._exchange("auth", {"AuthKey": _read_secret(address.auth_path)})
        except SerfFault:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor: between exchanges it turns readable only when the Serf agent goes away."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def read_roster(self) -> Roster:
        """Ask for all members.

        Raises:
            SerfFault: The exchange failed; the connection is closed.
        """
        asked_ns = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
        try:
            self_name = self.read_self_name()
            members, refused = self._read_members()
            return Roster(asked_ns, self_name, members, refused)
        except SerfFault:
            self.close()
            raise

    def read_some(self, names: Collection[str]) -> tuple[int, Members]:
        """Ask for a few members; return when, on the clock of the files' mtimes, and those that Serf knows.

        Args:
            names: Valid node names.

        Raises:
            SerfFault: The exchange failed; the connection is closed.
        """
        asked_ns = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
        # Serf puts the pattern between ^ and $, but an alternative in it would end there.
        pattern = f"(?:{'|'.join(map(re.escape, sorted(names)))})"
        deadline = time.monotonic() + self._timeout_s
        self._exchange("members-filtered", {"Name": pattern})
        with self._closing_on_failure("members-filtered"):
            listed = self._wire.receive_members(deadline, _PATIENCE * self._timeout_s)
            members, _ = Listing().read(listed)
        return asked_ns, {name: members[name] for name in names if name in members}

    def read_self_name(self) -> str:
        """Ask for the name of the Serf agent's own node.

        Raises:
            SerfFault: The exchange failed.
        """
        agent = _field(self._exchange("stats", None, answers=True), b"agent", dict)
        return decode(_field(agent, b"name", bytes))

    def join(self, addresses: Sequence[str]) -> None:
        """Have the Serf agent join the cluster at gossip addresses, one of which is enough.

        Raises:
            SerfFault: None of them answers, or the exchange failed; the connection is closed.
        """
        self._exchange("join", {"Existing": list(addresses), "Replay": False}, answers=True)

    def change_tags(self, tags: Mapping[str, str], deleted: Sequence[str] = ()) -> None:
        """Set and delete tags of the Serf agent's own node.

        Raises:
            SerfFault: Serf refuses the change, or the exchange failed; the connection is closed.
        """
        self._exchange("tags", {"Tags": dict(tags), "DeleteTags": list(deleted)})

    def send_event(self, name: str, payload: bytes) -> None:
        """Have the Serf agent tell all members of a user event, which is not merged with others of its name.

        Raises:
            SerfFault: Serf refuses it, for example as too long, or the exchange failed; the connection is closed.
        """
        self._exchange("event", {"Name": name, "Payload": payload, "Coalesce": False})

    def force_leave(self, name: str) -> None:
        """Have the Serf agent tell all members that one leaves, which one that is alive contradicts.

        Raises:
            SerfFault: Serf refuses it, or the exchange failed; the connection is closed.
        """
        self._exchange("force-leave", {"Node": name})

    def leave(self) -> None:
        """Have the Serf agent leave the cluster and end, which takes it a second or more; close the connection.

        Raises:
            SerfFault: The exchange failed.
        """
        self._exchange("leave", None)
        self.close()

    def _read_members(self) -> tuple[Members, Refused]:
        """Ask for the members, and judge each as it arrives."""
        deadline = time.monotonic() + self._timeout_s
        self._exchange("members", None)
        with self._closing_on_failure("members"):
            return self._listing.read(self._wire.receive_members(deadline, _PATIENCE * self._timeout_s))

    def _exchange(self, command: str, body: dict[str, Any] | None, answers: bool = False) -> dict[bytes, Any]:
        """Send one command; return its body, or its header when the command has no body."""
        self._seq += 1
        request = msgpack.packb({"Command": command, "Seq": self._seq})
        if body is not None:
            request += msgpack.packb(body, unicode_errors="surrogateescape")
        deadline = time.monotonic() + self._timeout_s
        with self._closing_on_failure(command):
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(request)
            header = self._wire.receive(deadline)
            said = decode(_field(header, b"Error", bytes))
            if said or header.get(b"Seq") != self._seq:
                reason = printable(said, 200) or "answers out of order"
                raise SerfRefusal(f"Serf's RPC at {self._name} refused {command}: {reason}")
            return self._wire.receive(deadline) if answers else header

    @contextlib.contextmanager
    def _closing_on_failure(self, command: str) -> Iterator[None]:
        """Close the connection when an exchange fails, and raise SerfFault."""
        try:
            yield
        except TimeoutError as error:
            self.close()
            reason = f"gave no answer to {command} in {self._timeout_s:g} s"
            raise SerfSilence(f"Serf's RPC at {self._name} {reason}") from error
        except OSError as error:
            self.close()
            raise SerfFault(f"Serf's RPC at {self._name} broke off: {error.strerror or error}") from error
        except BROKEN as error:
            self.close()
            raise SerfFault(f"Serf's RPC at {self._name} cannot be read: {type(error).__name__}") from error
        except SerfFault:
            self.close()
            raise


def _field(message: object, key: bytes, kind: type) -> Any:
    if isinstance(message, dict) and isinstance(message.get(key), kind):
        return message[key]
    raise SerfFault(f"Serf's RPC sent no {kind.__name__} {key.decode()} where its protocol has one")


def _read_secret(path: str) -> str:
    try:
        secret = read_text(path, WRITTEN_BYTES)
    except SystemFault as error:
        raise SerfFault(f"{error}; give it to this user") from error
    if not secret or not secret.strip():
        raise SerfFault(f"{path} is missing or empty; write Serf's rpc_auth key into it")
    return secret.strip()
