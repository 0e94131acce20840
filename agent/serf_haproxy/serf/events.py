"""What Serf passes to an event handler, and the line of a node file. Cheap to import.

Serf runs a handler with `SERF_EVENT` in the environment and one line per member on standard input (Serf's
document "Event Handlers"):

    name TAB address TAB role TAB key=value,key=value LF

The tags come in any order. A tab or a line feed inside a field arrives as backslash-t or backslash-n; a comma,
an equals sign, a carriage return or a byte that is not UTF-8 arrives as it is. A node file holds the same line
behind a status, with the tags sorted and every character that could mislead a reader as %XX of its bytes:

    alive TAB web1 TAB 127.0.1.2 TAB web TAB port=8080,role=web LF
"""

import sys

from serf_haproxy.errors import InputError
from serf_haproxy.serf.printing import quoted

ALIVE, LEAVING, LEFT, FAILED = "alive", "leaving", "left", "failed"
STATUSES = (ALIVE, LEAVING, LEFT, FAILED)

# The status that an event gives its members; None: Serf has removed them from its list.
STATUS_OF_EVENT = {
    "member-join": ALIVE,
    "member-update": ALIVE,
    "member-leave": LEFT,
    "member-failed": FAILED,
    "member-reap": None,
}

NAME_BYTES = 128
LINE_BYTES = 4096  # Serf's tags take at most 512 bytes, each at most threefold when escaped
PAYLOAD_BYTES = 8 * 1024 * 1024  # some 10,000 members of the largest size that Serf allows

_ALPHANUMERIC = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NAME = _ALPHANUMERIC | frozenset("._-")
_HEX_DIGITS = frozenset("0123456789ABCDEFabcdef")


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


# Most of what is escaped: control characters, the percent sign itself, and (as surrogates) bytes that are not UTF-8.
_MISLEADING = [*range(0x20), 0x25, *range(0x7F, 0xA0), *range(0xDC80, 0xDD00)]
_ESCAPES = {code: _percent(chr(code)) for code in _MISLEADING}
_COMMA = "%2C"


class Member:
    """One member of the Serf cluster, as a node file says it.

    Attributes:
        name: Valid by `name_fault`.
        address: As Serf wrote it; not yet known to be an IP address.
        role: The value of the tag `role`, which Serf repeats in a separate field; "" without one.
        tags: Escaped `key=value` pairs, sorted; a comma that is certainly part of a value is written as %2C.
    """

    __slots__ = ("_are_certain", "address", "name", "role", "tags")
    _latest: tuple[tuple[str, ...], dict[str, str]] = ((), {})  # the rules ask several times about one member

    def __init__(self, name: str, address: str, role: str, tags: tuple[str, ...]) -> None:
        self.name = name
        self.address = address
        self.role = sys.intern(role)
        self.tags = tuple([sys.intern(tag) for tag in tags])  # members have many in common
        self._are_certain: bool | None = None

    def tag_values(self) -> dict[str, str]:
        """Return the tags by key; the caller must not change them. The last value of a repeated key counts."""
        tags, values = Member._latest  # another thread may replace it meanwhile
        if tags != self.tags:
            values = {unescape(key): unescape(value) for key, _, value in [tag.partition("=") for tag in self.tags]}
            Member._latest = self.tags, values
        return values

    def tags_are_certain(self) -> bool:
        """Return whether the tags are unambiguous: a comma inside a value can look like a further tag.

        Serf's tags have distinct keys and its role field repeats the tag `role`, so a repeated key or another
        role shows that a value was split at its comma. Only Serf's RPC can then say which one.
        """
        if self._are_certain is None:
            values, role = self.tag_values(), unescape(self.role)
            self._are_certain = len(values) == len(self.tags) and values.get("role", "") == role
        return self._are_certain


class Event:
    """One membership event.

    Attributes:
        kind: Serf's name for it, a key of `STATUS_OF_EVENT`.
        members: Those with a usable line, in Serf's order.
        refused: One sentence for every line that cannot be used.
    """

    __slots__ = ("kind", "members", "refused")

    def __init__(self, kind: str, members: list[Member], refused: list[str]) -> None:
        self.kind = kind
        self.members = members
        self.refused = refused


def escape(text: str) -> str:
    """Return a text with every misleading character, and the percent sign, written as %XX of its bytes.

    Misleading is what has no glyph of its own, such as a bidirectional control, and every blank but the usual one.
    """
    text = text.translate(_ESCAPES)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _percent(one) for one in text)


def unescape(text: str) -> str:
    """Undo `escape`; bytes that are not UTF-8 become surrogates. Text with a stray % is returned unchanged."""
    if "%" not in text:
        return text
    head, *parts = text.split("%")
    if not all(len(part) > 1 and _HEX_DIGITS.issuperset(part[:2]) for part in parts):
        return text
    raw = [bytes.fromhex(part[:2]) + part[2:].encode("utf-8", "surrogateescape") for part in parts]
    return (head.encode("utf-8", "surrogateescape") + b"".join(raw)).decode("utf-8", "surrogateescape")


def name_fault(name: str) -> str | None:
    """Return why a node name cannot be a file name and a server name; None when it can."""
    if not name:
        return "it is empty"
    if len(name) > NAME_BYTES:
        return f"it has {len(name)} characters, more than {NAME_BYTES}"
    if name[0] not in _ALPHANUMERIC:
        return "it does not start with an ASCII letter or digit"
    if not _NAME.issuperset(name):
        bad = next(character for character in name if character not in _NAME)
        return f"it contains {quoted(bad)}; allowed are ASCII letters, digits, dot, dash and underscore"
    return None


def member_fault(member: Member) -> str | None:
    """Return why a member cannot have a node file; None when it can."""
    size_bytes = len(format_line(LEAVING, member).encode("utf-8", "surrogateescape"))
    if size_bytes > LINE_BYTES:
        return f"its line would take {size_bytes} bytes, more than {LINE_BYTES} bytes"
    return None


def read_event(kind: str | None, payload: bytes) -> Event:
    """Read what Serf passes to a handler for a membership event.

    Args:
        kind: The value of `SERF_EVENT`, None when unset.
        payload: All of standard input.

    Raises:
        InputError: The event is none of the five membership events, or the payload is empty or too large.
    """
    if kind not in STATUS_OF_EVENT:
        known = ", ".join(STATUS_OF_EVENT)
        raise InputError(f"SERF_EVENT={quoted(kind)} is not a membership event; register this handler for: {known}")
    if len(payload) > PAYLOAD_BYTES:
        raise InputError(f"{kind}: more than {PAYLOAD_BYTES} bytes on standard input; Serf never sends that much")
    members = []
    refused = []
    for line in payload.decode("utf-8", "surrogateescape").split("\n"):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != 4:
            refused.append(f"{kind}: {len(fields)} fields instead of 4 in the line {_excerpt(line)}; line refused")
            continue
        fault = name_fault(fields[0])
        if fault:
            refused.append(f"{kind}: node name {_excerpt(fields[0])}: {fault}; member refused, rename that node")
            continue
        member = Member(fields[0], escape(fields[1]), escape(fields[2]), _read_tags(fields[3]))
        fault = member_fault(member)
        if fault:
            refused.append(f"{kind}: node {member.name}: {fault}; member refused, give that node fewer tags")
            continue
        members.append(member)
    if not members and not refused:
        raise InputError(f"{kind}: no member on standard input; only Serf should run this handler")
    return Event(kind, members, refused)


def make_member(name: str, address: str, tags: dict[str, str]) -> Member:
    """Make a member from what Serf's RPC says, with the line that Serf would pass to a handler.

    Args:
        name: Valid by `name_fault`.
        address: An address as text.
        tags: Raw keys and values; bytes that are not UTF-8 as surrogates.
    """

    def clean(text: str) -> str:
        return escape(text.replace("\t", "\\t").replace("\n", "\\n"))

    pairs = tuple(sorted(clean(f"{key}={value}").replace(",", _COMMA) for key, value in tags.items()))
    return Member(name, escape(address), clean(tags.get("role", "")), pairs)


def format_line(status: str, member: Member) -> str:
    """Return the content of a member's node file."""
    return f"{status}\t{member.name}\t{member.address}\t{member.role}\t{','.join(member.tags)}\n"


def parse_line(text: str) -> tuple[str, Member]:
    """Read the content of a node file back.

    Raises:
        InputError: It is not one complete line of a node file: torn, or written by another program.
    """
    fields = text[:-1].split("\t")
    if text[-1:] != "\n" or "\n" in text[:-1] or len(fields) != 5 or fields[0] not in STATUSES:
        raise InputError("it is not one line of status, name, address, role and tags")
    tags = tuple(fields[4].split(",")) if fields[4] else ()
    return sys.intern(fields[0]), Member(fields[1], fields[2], fields[3], tags)


def say_the_same(one: str, other: str) -> bool:
    """Return whether two node-file lines are equal as far as Serf's standard input can express it.

    The roster knows which commas are part of a value, an event does not: its repetition must not undo that.
    """
    return one == other or (_COMMA in one + other and _flatten(one) == _flatten(other))


def _flatten(line: str) -> tuple[str, list[str]]:
    head, _, tags = line.rstrip("\n").rpartition("\t")
    return head, sorted(tags.replace(_COMMA, ",").split(","))


def _read_tags(text: str) -> tuple[str, ...]:
    """Split Serf's `key=value,key=value`; a piece without an equals sign continues the value before it."""
    tags: list[str] = []
    for piece in escape(text).split(",") if text else ():
        if "=" in piece or not tags:
            tags.append(piece)
        else:
            tags[-1] += _COMMA + piece
    return tuple(sorted(tags))


def _excerpt(text: str) -> str:
    return quoted(text, 60)
