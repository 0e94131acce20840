"""Serf's RPC for the scripts of the s6 tree, with Python's standard library alone.

The command `serf` takes the RPC's key only from its command line or its environment, where other programs of the same
user can read it. This client reads the key from a file. The balancer's daemon has a client of its own
(agent/serf_haproxy/serf/rpc.py); the tree needs nothing of that package.

The wire: MessagePack maps over TCP, a header {Command, Seq} and a body; the answer is a header {Seq, Error} and, for
some commands, a body. Names and tags come from the network and may be any bytes.
"""

import contextlib
import ipaddress
import os
import select
import socket
import struct
import time
from typing import Any, NamedTuple

TIMEOUT_S = 5.0
_ANSWER_BYTES = 64 * 1024 * 1024
_DEPTH = 8  # Serf nests four deep
_ITEM_COUNT = 100_000  # members
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_REFUSALS = ("Authentication required", "Handshake required", "Unsupported command", "Invalid authentication token")
_SIZED = ("bytes", "text", "items", "pairs")


class Fault(Exception):
    """Serf cannot be asked, or refuses."""

    def show(self) -> str:
        """Return the text as one line that may be shown on a terminal."""
        return " ".join(map(show, str(self).split()))


class Member(NamedTuple):
    """A member of the cluster.

    Attributes:
        name: Its name; bytes that are no text are surrogates.
        address: Its IP address, "" when Serf has none.
        port: Its gossip port.
        status: Serf's word, such as "alive".
        tags: Its tags.
    """

    name: str
    address: str
    port: int
    status: str
    tags: dict[str, str]


class Connection:
    """A connection to the Serf agent's RPC, past its handshake.

    Args:
        rpc_addr: host:port.
        key: The RPC's key, "" for none.

    Raises:
        Fault: The Serf agent cannot be reached or refuses the key.
    """

    def __init__(self, rpc_addr: str, key: str) -> None:
        host, _, port = rpc_addr.rpartition(":")
        self._seq = 0
        self._buffer = bytearray()
        try:
            self._socket = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
        except (OSError, ValueError, OverflowError) as error:
            raise Fault(f"Serf's RPC at {rpc_addr} cannot be reached: {error}") from None
        try:
            self.call("handshake", {"Version": 1})
            if key:
                self.call("auth", {"AuthKey": key})
        except Fault:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def call(
        self, command: str, body: object = None, has_answer: bool = False, timeout_s: float = 0.0
    ) -> dict[str, Any]:
        """Send a command; return the answer's body, {} when the command has none. The default limit is TIMEOUT_S.

        Raises:
            Fault: Serf refuses, is too slow or breaks its protocol. Only after a refusal can the connection be used.
        """
        timeout_s = timeout_s or TIMEOUT_S
        self._seq += 1
        request = pack({"Command": command, "Seq": self._seq}) + (b"" if body is None else pack(body))
        deadline_s = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(request)
            header = self._read_map(deadline_s)
            # A command that fails has its body all the same; one that is not allowed has none.
            is_refused = str(header.get("Error")).startswith(_REFUSALS)
            answer = self._read_map(deadline_s) if has_answer and not is_refused else {}
        except TimeoutError:
            raise Fault(f"no answer to {command} within {timeout_s:g} s") from None
        except OSError as error:
            raise Fault(f"the connection broke during {command}: {error}") from None
        if header.get("Seq") != self._seq:
            raise Fault(f"answers to {command} out of order")
        if header.get("Error"):
            raise Fault(f"{command}: {header['Error']}")
        return answer

    def list_members(self) -> list[Member]:
        """Return all members; entries that are not members are left out."""
        listed = self.call("members", has_answer=True).get("Members")
        return [member for entry in listed or () if (member := _read_member(entry))] if isinstance(listed, list) else []

    def read_name(self) -> str:
        """Return the name of the Serf agent's own node."""
        agent = self.call("stats", has_answer=True).get("agent")
        return str(agent.get("name", "")) if isinstance(agent, dict) else ""

    def watch(self, events: str) -> None:
        """Have Serf send these events, such as "member-join,member-leave", on this connection from now on."""
        self.call("stream", {"Type": events})

    def wait_event(self, timeout_s: float) -> bool:
        """Wait for the next event of `watch`; return whether one has come.

        Raises:
            Fault: The Serf agent has gone.
        """
        if not self._buffer and not select.select([self._socket], [], [], max(timeout_s, 0.0))[0]:
            return False
        try:
            deadline_s = time.monotonic() + TIMEOUT_S
            self._read_map(deadline_s)
            self._read_map(deadline_s)
        except OSError as error:
            raise Fault(f"the stream of events broke: {error}") from None
        return True

    def _read_map(self, deadline_s: float) -> dict[str, Any]:
        message = self._unpack(deadline_s, 0)
        if not isinstance(message, dict):
            raise Fault("Serf's RPC sent no map")
        return message

    def _take(self, count: int, deadline_s: float) -> bytes:
        if count > _ANSWER_BYTES:
            raise Fault("Serf's RPC sent too much")
        while len(self._buffer) < count:
            if (left_s := deadline_s - time.monotonic()) <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the Serf agent closed the connection")
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _unpack(self, deadline_s: float, depth: int) -> Any:
        """Read one value of any kind."""
        kind = self._take(1, deadline_s)[0]
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind < 0x80 or kind >= 0xE0:
            return kind if kind < 0x80 else kind - 256
        if kind < 0xC0:
            what = "pairs" if kind < 0x90 else "items" if kind < 0xA0 else "text"
            return self._unpack_sized(what, kind & (0x1F if what == "text" else 0x0F), deadline_s, depth)
        if kind not in _TYPES:
            raise Fault("Serf's RPC sent invalid MessagePack")
        what, size = _TYPES[kind]
        code = _FORMATS[size]
        if what == "float":
            code = {4: "f", 8: "d"}[size]
        elif what == "signed":
            code = code.lower()
        number = struct.unpack(f">{code}", self._take(size, deadline_s))[0]
        return self._unpack_sized(what, number, deadline_s, depth) if what in _SIZED else number

    def _unpack_sized(self, what: str, size: int, deadline_s: float, depth: int) -> Any:
        """Read the content of a value that says how long it is."""
        if what in ("bytes", "text"):
            data = self._take(size, deadline_s)
            return data.decode("utf-8", "surrogateescape") if what == "text" else data
        if depth > _DEPTH or size > _ITEM_COUNT:
            raise Fault("Serf's RPC sent a value that is too deep or too long")
        if what == "items":
            return [self._unpack(deadline_s, depth + 1) for _ in range(size)]
        return {str(self._unpack(deadline_s, depth + 1)): self._unpack(deadline_s, depth + 1) for _ in range(size)}


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_TYPES = {
    **{0xC4 + at: ("bytes", 1 << at) for at in range(3)},
    **{0xCA + at: ("float", 4 << at) for at in range(2)},
    **{0xCC + at: ("unsigned", 1 << at) for at in range(4)},
    **{0xD0 + at: ("signed", 1 << at) for at in range(4)},
    **{0xD9 + at: ("text", 1 << at) for at in range(3)},
    **{0xDC + at: ("items", 2 << at) for at in range(2)},
    **{0xDE + at: ("pairs", 2 << at) for at in range(2)},
}


def pack(value: object) -> bytes:
    """Return None, a bool, a number from 0 to 2**32-1, a text, a list or a map as MessagePack."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return b"\xce" + struct.pack(">I", value)
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        return b"\xdb" + struct.pack(">I", len(data)) + data
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        flat = b"".join(pack(key) + pack(item) for key, item in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + flat
    raise TypeError(value)


def connect() -> Connection:
    """Connect to the Serf agent of this container or machine, with the key beside this file if there is one.

    Raises:
        Fault: As `Connection`, or the key cannot be read.
    """
    key = ""
    try:
        with contextlib.suppress(FileNotFoundError):
            path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rpc-auth")
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                key = file.read().strip()
    except OSError as error:
        raise Fault(f"the key of Serf's RPC cannot be read: {error}") from None
    return Connection(os.environ.get("SERF_RPC_ADDR") or "127.0.0.1:7373", key)


def show(text: str) -> str:
    """Return a text from the network as it may be shown on a terminal: in printable ASCII, without blanks."""
    return ascii(text)[1:-1].replace(" ", "\\x20")


def _read_member(entry: object) -> Member | None:
    if not isinstance(entry, dict):
        return None
    name, packed, port, status, tags = (entry.get(key) for key in ("Name", "Addr", "Port", "Status", "Tags"))
    if not isinstance(name, str) or not isinstance(status, str) or not isinstance(port, int):
        return None
    if isinstance(packed, str):
        packed = packed.encode("utf-8", "surrogateescape")
    try:
        address = ipaddress.ip_address(packed) if isinstance(packed, bytes) else None
    except ValueError:
        address = None
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    known = {str(key): str(value) for key, value in tags.items()} if isinstance(tags, dict) else {}
    return Member(name, str(address or ""), port, status, known)
