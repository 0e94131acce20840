"""MessagePack from the Serf agent, within limits of size, count and time.

The answer is hostile until it is read: a few bytes on the wire can be many objects in memory. So members are read one
at a time and judged before the next one, and reading stops at the first thing that the protocol does not have.
"""

import socket
import time
from collections.abc import Iterator
from typing import Any

import msgpack

from serf_haproxy.errors import SerfFault
from serf_haproxy.system.deadlines import time_left

MEMBER_COUNT = 100_000
ANSWER_BYTES = 64 * 1024 * 1024  # as many members of ordinary size
MESSAGE_BYTES = 4 * 1024 * 1024  # one member, or a whole answer of another kind
READ_BYTES = 262144
_CONTAINER_COUNT = 4096  # maps and lists in one message; a member has two
_ENTRY_COUNT = 65536  # of one map or list
_KEY_COUNT = 16  # of the body that has the members; Serf's has one

# What a wrong or hostile message can raise while it is read.
BROKEN = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError)


class Wire:
    """Reads the messages that arrive on a socket.

    Args:
        connection: The socket.
        name: The Serf agent's address, for the text of errors.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._socket = connection
        self._name = name
        self._fed_bytes = 0
        self._container_count = 0
        # Names, tags and addresses are bytes of any kind: nothing is decoded on the way in. Keys are bytes only, since
        # numbers can be chosen so that a map of them takes quadratic time.
        self._unpacker = msgpack.Unpacker(
            raw=True,
            strict_map_key=True,
            object_hook=self._count,
            list_hook=self._count,
            max_buffer_size=2 * MESSAGE_BYTES,
            max_array_len=_ENTRY_COUNT,
            max_map_len=_ENTRY_COUNT,
            max_str_len=MESSAGE_BYTES,
            max_bin_len=MESSAGE_BYTES,
            max_ext_len=MESSAGE_BYTES,
        )

    def receive(self, deadline: float) -> dict[bytes, Any]:
        """Return the next message, a map.

        Raises:
            SerfFault: It is not a map, or too large.
            OSError: It does not arrive in time, or the Serf agent has gone.
        """
        message = self._take(self._unpacker.unpack, deadline)
        if isinstance(message, dict):
            return message
        raise SerfFault(f"Serf's RPC at {self._name} sent {type(message).__name__}, not a map")

    def receive_members(self, deadline: float, patience_s: float) -> Iterator[object]:
        """Yield the entries of the list `Members`, each as it arrives.

        Args:
            deadline: When the last one must have arrived, not counting the time that the caller spends on them.
            patience_s: How long the caller may spend on all of them.

        Raises:
            SerfFault: There is no such list, or it exceeds a limit.
            OSError: It does not arrive in time, or the Serf agent has gone.
        """
        first_byte, spent_s, has_members = self._unpacker.tell(), 0.0, False
        key_count = self._take(self._unpacker.read_map_header, deadline)
        for _ in range(min(key_count, _KEY_COUNT)):
            if self._take(self._unpacker.unpack, deadline) != b"Members":
                self._take(self._unpacker.unpack, deadline)
                continue
            has_members = True
            member_count = self._take(self._unpacker.read_array_header, deadline)
            if member_count > MEMBER_COUNT:
                raise SerfFault(f"Serf's RPC at {self._name} lists {member_count} members, more than {MEMBER_COUNT}")
            for _ in range(member_count):
                entry = self._take(self._unpacker.unpack, deadline + spent_s)
                if self._unpacker.tell() - first_byte > ANSWER_BYTES:
                    raise SerfFault(f"Serf's RPC at {self._name} sent more than {ANSWER_BYTES} bytes")
                began_s = time.monotonic()
                yield entry
                spent_s += time.monotonic() - began_s
                if spent_s > patience_s:
                    raise SerfFault(f"judging the members of Serf's RPC at {self._name} took over {patience_s:g} s")
        if key_count > _KEY_COUNT or not has_members:
            raise SerfFault(f"Serf's RPC at {self._name} sent no list Members where its protocol has one")

    def read_present(self) -> Iterator[object]:
        """Read once, without waiting, and yield the messages that have arrived; raise the errors of `receive`."""
        try:
            self._feed(self._socket.recv(READ_BYTES))
        except BlockingIOError:
            pass  # messages may have arrived with the answer before them
        while True:
            self._container_count = 0
            try:
                message = self._unpacker.unpack()
            except msgpack.OutOfData:
                return
            except BROKEN as error:
                raise self._explain(error) from error
            yield message

    def _take(self, unpack: Any, deadline: float) -> Any:
        """Call a method of the unpacker, and wait for data until it has a result."""
        first_byte = self._unpacker.tell()
        self._container_count = 0
        while True:
            try:
                return unpack()
            except msgpack.OutOfData:
                if self._fed_bytes - first_byte > MESSAGE_BYTES:
                    raise SerfFault(
                        f"Serf's RPC at {self._name} sent more than {MESSAGE_BYTES} bytes at once"
                    ) from None
                self._socket.settimeout(time_left(deadline))
                self._feed(self._socket.recv(READ_BYTES))
            except BROKEN as error:
                raise self._explain(error) from error

    def _feed(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("the Serf agent closed the connection")
        try:
            self._unpacker.feed(data)
        except msgpack.BufferFull as error:
            raise SerfFault(f"Serf's RPC at {self._name} sent more than {MESSAGE_BYTES} bytes at once") from error
        self._fed_bytes += len(data)

    def _count(self, container: Any) -> Any:
        self._container_count += 1
        if self._container_count > _CONTAINER_COUNT:
            raise ValueError(f"more than {_CONTAINER_COUNT} maps and lists in one message")
        return container

    def _explain(self, error: BaseException) -> SerfFault:
        reason = str(error) or type(error).__name__
        return SerfFault(f"Serf's RPC at {self._name} sent invalid MessagePack: {reason}")
