"""A configuration's text, split into the servers that the runtime socket can change, and all the rest. Pure.

Such a server has a line in plain words that are all known to work at run time (`config/keywords`), in a section of
which that is known too, and an endpoint that is literally what HAProxy reports. Every other line belongs to the rest,
which only a reload can change: also every server that is not ours, where the caller says which ones are. A line with
quotes, escapes or variables, and a `server-template`, make a whole section part of the rest.
"""

import functools
import hashlib
import string
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from serf_haproxy.config.fingerprint import strip
from serf_haproxy.config.keywords import are_proven, judge_section
from serf_haproxy.config.words import has_keyword, is_literal, is_plain, read_words, split_sections, take_number
from serf_haproxy.policy.server import Server
from serf_haproxy.services import Key

_NAME = frozenset(string.ascii_letters + string.digits + "_.:-")  # HAProxy's own rule for names of sections

_LAYOUT_COUNT = 3  # a pass compares what it publishes with what the one before published
_LINE_COUNT = 4096  # most lines of a configuration are in the next one too; there is room for a text of any length
_WORDS_COUNT = 1024  # most servers have the same words

Judge = Callable[[tuple[str, ...]], tuple[tuple[str, ...], bool]]
Owned = frozenset[tuple[str, str]]  # names and addresses of servers; an IPv6 address is in brackets


class Line(NamedTuple):
    """One `server` line, with what `default-server` lines add to it.

    Attributes:
        endpoint: Address and port as HAProxy writes them.
        weight: 0 to 256.
        words: All further words, the defaults first: what `add server` needs to make the same server.
        id: The server's id; 0 where the line has none, and HAProxy chooses one.
    """

    endpoint: str
    weight: int
    words: tuple[str, ...]
    id: int = 0


class Layout(NamedTuple):
    """A configuration taken apart.

    Attributes:
        servers: The servers that the runtime socket can change.
        sections: The `backend` and `listen` sections in which it can.
        rest: Digest of everything else, without comments and blank lines.
        fixed: The servers that only a reload can change. None where HAProxy alone knows what the line says.
        cookied: Those of the sections in which an added server gets a cookie only when HAProxy is told.
        by_id: Those of the sections in which the algorithm chooses by the servers' ids.
        measured: The sections with measured weights, and whether a split shares their requests (`diff.weigh`).
    """

    servers: dict[Key, Line]
    sections: frozenset[str]
    rest: str
    fixed: Mapping[Key, Line | None] = {}
    cookied: frozenset[str] = frozenset()
    by_id: frozenset[str] = frozenset()
    measured: Mapping[str, bool] = {}


class _Draft(NamedTuple):
    """The parts of a layout while a text is read."""

    servers: dict[Key, Line]
    sections: set[str]
    fixed: dict[Key, Line | None]
    cookied: set[str]
    by_id: set[str]


class _Defaults(NamedTuple):
    """What a section inherits.

    Attributes:
        lines: All lines.
        words: Those of its `default-server` lines; None where only HAProxy can read them.
    """

    lines: tuple[str, ...] = ()
    words: tuple[str, ...] | None = ()


class Parser:
    """Reads configurations. It remembers lines and texts to save time; a new one returns the same layouts."""

    def __init__(self) -> None:
        self.read = functools.lru_cache(_LAYOUT_COUNT)(self._read)
        self._share = functools.lru_cache(_WORDS_COUNT)(_judge)
        self._make_room(_LINE_COUNT)

    def read_published(self, text: str) -> Layout:
        """Take apart a configuration that may end in a fingerprint."""
        return self.read(strip(text))

    def read_own(self, text: str, servers: Sequence[Server], bare: str = "") -> Layout:
        """Take a configuration apart in which only some servers may change at run time.

        Args:
            text: The configuration.
            servers: Those servers; each may have another port in the configuration.
            bare: The same configuration without any node: a server in it is the administrator's.
        """
        layout, others = self.read(text), self.read(bare)
        foreign = frozenset(others.servers.keys() | others.fixed.keys())
        is_disjoint = foreign.isdisjoint(layout.servers)
        endpoints = {(server.name, server.endpoint) for server in servers}
        if is_disjoint and all((key[1], line.endpoint) in endpoints for key, line in layout.servers.items()):
            return layout  # most often
        own = frozenset((name, endpoint.rpartition(":")[0]) for name, endpoint in endpoints)
        strangers = ((key[1], line.endpoint.rpartition(":")[0]) not in own for key, line in layout.servers.items())
        return layout if is_disjoint and not any(strangers) else self._read(text, own, foreign)

    def _read(self, text: str, own: Owned | None = None, foreign: frozenset[Key] = frozenset()) -> Layout:
        """Take a valid configuration apart.

        Args:
            text: The configuration.
            own: Names and addresses of the servers that the runtime socket may change; None for all.
            foreign: Servers that it may not change all the same.
        """
        layout = _Draft({}, set(), {}, set(), set())
        rest = hashlib.sha256()
        inherited = _Defaults()
        named: dict[str, _Defaults] = {}
        sections = list(split_sections(text))
        if (count := sum(map(len, sections))) > self._line_count:
            self._make_room(count * 5 // 4)
        # Conditional blocks (`.if`) may leave any line out, and only HAProxy knows which.
        is_certain = not any(line.startswith(".") for section in sections for line in section)
        for header, *lines in sections:
            rest.update(f"{header}\n".encode("utf-8", "surrogateescape"))
            head = header.split()
            if head[0] == "defaults":
                inherited = self._read_defaults(head, lines, named)
            has_servers = is_certain and head[0] in ("backend", "listen") and len(head) > 1
            remaining = self._read_section(head, lines, inherited, (own, foreign), layout) if has_servers else lines
            rest.update("".join(f"{line}\n" for line in remaining).encode("utf-8", "surrogateescape"))
        digest = rest.hexdigest()[:16]
        cookied, by_id = frozenset(layout.cookied), frozenset(layout.by_id)
        return Layout(layout.servers, frozenset(layout.sections), digest, layout.fixed, cookied, by_id)

    def _read_defaults(self, head: list[str], lines: Sequence[str], named: dict[str, _Defaults]) -> _Defaults:
        """Return what the sections after a `defaults` section inherit: `defaults [NAME] [from BASE]`."""
        base = _Defaults()
        if "from" in head[1:3]:
            name = head[head.index("from", 1) + 1 :]
            base = named.get(" ".join(name), _Defaults(("from",), None))
        words = base.words
        for line in lines:
            words = self._extend(words, line)
        defaults = _Defaults((*base.lines, *lines), words)
        if len(head) > 1 and head[1] != "from":
            is_again = head[1] in named  # HAProxy decides which of the two counts
            named[head[1]] = _Defaults(("from",), None) if is_again else defaults
        return defaults

    def _read_section(
        self,
        head: list[str],
        lines: Sequence[str],
        inherited: _Defaults,
        ownership: tuple[Owned | None, frozenset[Key]],
        layout: _Draft,
    ) -> list[str]:
        """Sort the servers of a section; return the lines that belong to the rest."""
        own, foreign = ownership
        section, words = head[1], inherited.words
        others = [line for line in lines if not has_keyword(line, "server")]
        manner = judge_section((*inherited.lines, *others))
        is_changeable = manner.is_proven and len(head) == 2 and _NAME.issuperset(section)
        is_changeable = is_changeable and all(map(self._is_plain, (*inherited.lines, *lines)))
        if is_changeable:
            layout.sections.add(section)
            layout.cookied.update([section] if manner.has_cookies else ())
            layout.by_id.update([section] if manner.needs_ids else ())
        remaining, is_other = [], frozenset(others)
        for line in lines:
            if line in is_other:
                words = self._extend(words, line)
                remaining.append(line)
                continue
            name, server, is_proven = self._read_line(line, words)
            is_own = server is not None and (own is None or (name, server.endpoint.rpartition(":")[0]) in own)
            is_own = is_own and (section, name) not in foreign
            if server and is_own and is_proven and is_changeable and (server.id or not manner.needs_ids):
                layout.servers[section, name] = server
            else:
                layout.fixed[section, name] = server if len(head) == 2 else None
                remaining.append(line)
        return remaining

    def _extend(self, words: tuple[str, ...] | None, line: str) -> tuple[str, ...] | None:
        """Return the words of `default-server` lines after one more line: they count for the servers behind it."""
        if words is None or not has_keyword(line, "default-server"):
            return words
        more = read_words(line)
        return None if more is None else words + more[1:]

    def _make_room(self, line_count: int) -> None:
        """Remember so many lines: those of one text, since most texts are like the one before."""
        self._line_count = line_count
        self._read_line = functools.lru_cache(line_count)(functools.partial(_read_line, self._share))
        self._is_plain = functools.lru_cache(line_count)(is_plain)


def _judge(words: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Return words, and whether all of them are known to work at run time."""
    return words, are_proven(words)


def _read_line(share: Judge, line: str, defaults: tuple[str, ...] | None) -> tuple[str, Line | None, bool]:
    """Return the name of a server, its line, and whether all its words are known to work at run time.

    The line is None where its endpoint is not literal, or where only HAProxy knows what it says.
    """
    words = read_words(line)
    if words is None or len(words) < 3:
        return line.split()[1], None, False
    _, name, endpoint, *more = words
    if defaults is None or not is_literal(endpoint) or not _NAME.issuperset(name):
        return name, None, False
    rest = [*defaults, *more]
    weight, number = take_number(rest, "weight", 1), take_number(rest, "id", 0)
    while "no-check" in rest:  # it cancels a `check` before it, and `add server` does not know it
        index = rest.index("no-check")
        rest = [word for word in rest[:index] if word != "check"] + rest[index + 1 :]
    shared, is_proven = share(tuple(rest))  # one tuple for all servers with these words
    return name, Line(endpoint, weight, shared, number), is_proven
