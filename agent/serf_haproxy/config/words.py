"""The words of a line of HAProxy's configuration. Pure."""

import ipaddress
import re
import string
from collections.abc import Iterator

# Quoted text is one word or a part of one. Outside of it these characters change what the words are.
_QUOTED = re.compile(r"\"[^\"\\$]*\"|'[^']*'")
_UNCERTAIN = re.compile(r"[\"'\\$#]")
# Most endpoints: an IPv4 address and a port without leading zeros.
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4_ENDPOINT = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}:(?:0|[1-9][0-9]{{0,4}})")
# Characters that mean themselves, in the file and at the runtime socket.
_PLAIN = frozenset(string.ascii_letters + string.digits + "_.:-[]()/,=+%@ \t")
_SECTIONS = frozenset(
    """
    global defaults frontend backend listen peers resolvers userlist cache program mailers ring log-forward
    http-errors fcgi-app crt-store traces
    """.split()  # noqa: SIM905
)


def read_words(line: str) -> tuple[str, ...] | None:
    """Return the words of a line; None where a variable, an escape or an open quote makes them uncertain."""
    return None if _UNCERTAIN.search(unquoted := _QUOTED.sub("?", line)) else tuple(unquoted.split())


def is_literal(endpoint: str) -> bool:
    """Return whether an endpoint is written as HAProxy reports it: an IP address and a port in normal form."""
    if _IPV4_ENDPOINT.fullmatch(endpoint):
        return True
    host, _, port = endpoint.rpartition(":")
    if not (port.isdecimal() and port.isascii() and len(port) <= 5 and str(int(port)) == port):
        return False
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        return False
    # HAProxy writes IPv6 addresses that contain an IPv4 address in another form.
    is_mixed = address.version == 6 and int(address) >> 32 in (0, 0xFFFF) and int(address) > 0xFFFF
    return is_bracketed is (address.version == 6) and str(address) == host.strip("[]") and not is_mixed


def take_number(words: list[str], keyword: str, number: int) -> int:
    """Remove a keyword with its value wherever it stands; return the last value."""
    while keyword in words[:-1]:
        index = words.index(keyword)
        said = words[index + 1]
        number = int(said) if said.isdecimal() and said.isascii() and len(said) <= 9 else number
        del words[index : index + 2]
    return number


def has_keyword(line: str, keyword: str) -> bool:
    """Return whether a line begins with this keyword and has more words."""
    return line.startswith(keyword) and line[len(keyword) : len(keyword) + 1].isspace()


def is_plain(line: str) -> bool:
    """Return whether a line has only characters that mean themselves, at the runtime socket too, if it has servers."""
    words = line.split(maxsplit=3)
    return words[0] not in ("server", "default-server") or (
        _PLAIN.issuperset(line) and (words[0] != "server" or len(words) > 2)
    )


def split_sections(text: str) -> Iterator[list[str]]:
    """Yield the lines of each section, its header first, without comments and blank lines."""
    section: list[str] = []
    for line in text.split("\n"):  # HAProxy knows no other line separator
        stripped, is_header = _read_kind(line)
        if not stripped:
            continue
        if is_header and section:
            yield section
            section = []
        section.append(stripped)
    if section:
        yield section


def _read_kind(line: str) -> tuple[str, bool]:
    """Return a line without blanks around it, "" for a comment, and whether it begins a section."""
    stripped = line.strip()
    if not stripped or stripped[0] == "#":
        return "", False
    return stripped, stripped.split(None, 1)[0] in _SECTIONS
