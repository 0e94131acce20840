"""A configuration's text, split into the servers that the runtime socket can change, and all the rest. Pure.

Only a `server` line in plain words counts as such a server. A line with quotes, escapes or variables, a section that
names its defaults, and a section with a `server-template` belong to the rest, which only a reload can change.
"""

import functools
import hashlib
import string
from collections.abc import Iterator
from typing import NamedTuple

from serf_haproxy.config.fingerprint import strip
from serf_haproxy.services import Key

_SECTIONS = frozenset(
    """
    global defaults frontend backend listen peers resolvers userlist cache program mailers ring log-forward
    http-errors fcgi-app crt-store traces
    """.split()  # noqa: SIM905
)
_PLAIN = frozenset(string.ascii_letters + string.digits + "_.:-[]/,=+%@ \t")
_NAME = frozenset(string.ascii_letters + string.digits + "_.:-")  # HAProxy's own rule for names of sections

_LAYOUT_COUNT = 4  # a pass compares what it publishes with what the one before published
_LINE_COUNT = 65536  # most lines of a configuration are in the next one too


class Line(NamedTuple):
    """One `server` line, with what `default-server` lines add to it.

    Attributes:
        endpoint: Address and port as HAProxy writes them.
        weight: 0 to 256.
        words: All further words, the defaults first: what `add server` needs to make the same server.
    """

    endpoint: str
    weight: int
    words: tuple[str, ...]


class Layout(NamedTuple):
    """A configuration taken apart.

    Attributes:
        servers: The servers that the runtime socket can change.
        sections: The `backend` and `listen` sections that have only such servers.
        rest: Digest of everything else, without comments and blank lines.
    """

    servers: dict[Key, Line]
    sections: frozenset[str]
    rest: str


class Parser:
    """Reads configurations. It remembers lines and texts to save time; a new one returns the same layouts."""

    def __init__(self) -> None:
        self.read = functools.lru_cache(_LAYOUT_COUNT)(self._read)
        self.read_published = functools.lru_cache(_LAYOUT_COUNT)(self._read_published)
        self._read_kind = functools.lru_cache(_LINE_COUNT)(_read_kind)
        self._is_plain = functools.lru_cache(_LINE_COUNT)(_is_plain)
        self._read_line = functools.lru_cache(_LINE_COUNT)(_read_line)

    def _read(self, text: str) -> Layout:
        """Take a valid configuration apart."""
        servers: dict[Key, Line] = {}
        plain_sections = set()
        rest = hashlib.sha256()
        inherited: tuple[str, ...] = ()
        sections = list(self.split(text))
        # Conditional blocks (`.if`) may leave any line out, and only HAProxy knows which.
        is_certain = not any(line.startswith(".") for section in sections for line in section)
        inherits_plainly = True
        for header, *lines in sections:
            head = header.split()
            is_plain = all(map(self._is_plain, lines))
            if head[0] == "defaults":
                inherited, inherits_plainly = (), is_plain
            has_servers = head[0] in ("backend", "listen") and len(head) == 2 and _NAME.issuperset(head[1])
            has_servers = has_servers and is_plain and inherits_plainly and is_certain
            if has_servers:
                plain_sections.add(head[1])
            rest.update(f"{header}\n".encode("utf-8", "surrogateescape"))
            defaults = inherited
            for line in lines:
                if has_servers and _has_keyword(line, "server"):
                    name, server = self._read_line(line, defaults)
                    servers[head[1], name] = server
                    continue
                if _has_keyword(line, "default-server"):  # it counts for the servers behind it
                    defaults += tuple(line.split()[1:])
                rest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
            if head[0] == "defaults":
                inherited = defaults
        return Layout(servers, frozenset(plain_sections), rest.hexdigest()[:16])

    def _read_published(self, text: str) -> Layout:
        """Take apart a configuration that may end in a fingerprint."""
        return self.read(strip(text))

    def split(self, text: str) -> Iterator[list[str]]:
        """Yield the lines of each section, its header first, without comments and blank lines."""
        section: list[str] = []
        for line in text.split("\n"):  # HAProxy knows no other line separator
            stripped, is_header = self._read_kind(line)
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
    words = line.split(maxsplit=1)
    if not words or words[0].startswith("#"):
        return "", False
    return line.strip(), words[0] in _SECTIONS


def _has_keyword(line: str, keyword: str) -> bool:
    """Return whether a line begins with this keyword and has more words."""
    return line.startswith(keyword) and line[len(keyword) : len(keyword) + 1].isspace()


def _is_plain(line: str) -> bool:
    words = line.split(maxsplit=3)
    if words[0] not in ("server", "default-server"):
        return words[0] != "server-template"
    return _PLAIN.issuperset(line) and (words[0] != "server" or len(words) > 2)


def _read_line(line: str, defaults: tuple[str, ...]) -> tuple[str, Line]:
    """Return the name of a server and its line."""
    _, name, endpoint, *words = line.split()
    rest = [*defaults, *words]
    weight = 1
    while "weight" in rest[:-1]:
        index = rest.index("weight")
        said = rest[index + 1]
        weight = int(said) if said.isdecimal() and len(said) <= 9 else weight
        del rest[index : index + 2]
    while "no-check" in rest:  # it cancels a `check` before it, and `add server` does not know it
        index = rest.index("no-check")
        rest = [word for word in rest[:index] if word != "check"] + rest[index + 1 :]
    return name, Line(endpoint, weight, tuple(rest))
