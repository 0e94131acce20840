"""The members in an answer of the Serf agent's RPC, judged one by one.

Any sender of gossip can make the Serf agent list a member without tags or address, with bytes that are not UTF-8, or
with a name that cannot be a file name. Such a member is refused alone.
"""

import functools
import ipaddress
import socket
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from serf_haproxy.errors import SerfFault
from serf_haproxy.serf.events import LINE_BYTES, STATUSES, Member, make_member, member_fault, name_fault
from serf_haproxy.serf.printing import printable

_SHARED_COUNT = 1024
_RAW = {status: status.encode() for status in STATUSES}

REFUSED_COUNT = 1000  # more are only counted: each becomes a line of the log

Members = dict[str, tuple[str, Member]]  # status and member by name
Refused = tuple[tuple[str, str], ...]  # printable name and reason


class _Read(NamedTuple):
    """A member's address, status and tags as the Serf agent sent them, their meaning, and the fault, "" for none."""

    said: tuple[Any, ...]
    status: str
    member: Member
    fault: str


class Listing:
    """Reads lists of members; an entry that has not changed since the last list is not read again."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Read] = {}
        self._share = functools.lru_cache(_SHARED_COUNT)(_make_tags)  # many members have the same

    def read(self, listed: Iterable[object]) -> tuple[Members, Refused]:
        """Return status and member by name, and the members that cannot have a node file, with the reason.

        Raises:
            SerfFault: An entry is not a map, so this is no list of members, and the rest of it is not worth reading.
        """
        members: Members = {}
        refused: list[tuple[str, str]] = []
        refused_count = 0
        known = {}
        for entry in listed:
            if not isinstance(entry, dict):
                raise SerfFault(f"Serf's RPC sent {type(entry).__name__} where its protocol has a member")
            name = entry.get(b"Name")
            key = name if isinstance(name, bytes) else b""
            try:
                read = self._read_entry(entry, key)
                fault = read.fault
            except ValueError as error:
                fault = str(error)
            if fault:
                refused_count += 1
                if len(refused) < REFUSED_COUNT:
                    refused.append((printable(decode(key), 60) or "(no name)", fault))
                continue
            known[key] = read
            if read.status in STATUSES:
                members[read.member.name] = read.status, read.member
        self._known = known
        refused.sort()
        if refused_count > len(refused):
            refused.append((f"({refused_count - len(refused)} more)", "their reasons are not listed"))
        return members, tuple(refused)

    def _read_entry(self, entry: dict[bytes, Any], key: bytes) -> _Read:
        """Return the meaning of an entry, from the last list where the entry has not changed.

        Raises:
            ValueError: It is not what the protocol allows.
        """
        said = entry.get(b"Addr"), entry.get(b"Status"), entry.get(b"Tags")
        before = self._known.get(key)
        if before and before.said == said:
            return before
        read = _read_entry(entry, said)
        address, status, tags = said
        return read._replace(said=(address, _RAW.get(read.status, status), tags and self._share(*sorted(tags.items()))))


def _make_tags(*pairs: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    return dict(pairs)


def decode(raw: bytes) -> str:
    """Return bytes of any kind as text; bytes that are not UTF-8 become surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def _read_entry(entry: dict[bytes, Any], said: tuple[Any, ...]) -> _Read:
    name, status = decode(_part(entry, b"Name", bytes)), sys.intern(decode(_part(entry, b"Status", bytes)))
    tags = _part(entry, b"Tags", dict, or_nil=True) or {}
    if len(tags) > LINE_BYTES // 2:  # each takes two bytes at least
        raise ValueError(f"it has {len(tags)} tags, whose line would take more than {LINE_BYTES} bytes")
    if odd := [type(part).__name__ for pair in tags.items() for part in pair if not isinstance(part, bytes)]:
        raise ValueError(f"it has {odd[0]} where Serf's protocol has a tag")
    address = _read_address(_part(entry, b"Addr", bytes, or_nil=True) or b"")
    member = make_member(name, address, {decode(key): decode(value) for key, value in tags.items()})
    fault = name_fault(name)
    return _Read(said, status, member, f"node name: {fault}" if fault else member_fault(member) or "")


def _part(entry: dict[bytes, Any], key: bytes, kind: type, or_nil: bool = False) -> Any:
    """Return a part of a member's entry; Go sends a map or slice that was never made as nil."""
    part = entry.get(key)
    if isinstance(part, kind) or (or_nil and part is None):
        return part
    raise ValueError(f"it has {type(part).__name__} where Serf's protocol has {key.decode()}")


def _read_address(raw: bytes) -> str:
    """Return an address as text: four bytes, or sixteen, which may hold an IPv4 address."""
    if len(raw) == 4:
        return socket.inet_ntoa(raw)
    if len(raw) != 16:
        return raw.hex()  # not an address: the decision quarantines the member
    address = ipaddress.IPv6Address(raw)
    return str(address.ipv4_mapped or address)
