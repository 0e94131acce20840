"""A configuration's text taken apart into the servers that the runtime socket can change, and all the rest: pure.

Only a `server` line that says everything in plain words counts as such a server. A line with quotes, escapes or
variables, a section that names its defaults, and one with a `server-template` belong to the rest, which only a reload
can change.
"""

import functools
import hashlib
import string
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_SECTIONS = frozenset(
    """
    global defaults frontend backend listen peers resolvers userlist cache program mailers ring log-forward
    http-errors fcgi-app crt-store traces
    """.split()  # noqa: SIM905
)
_PLAIN = frozenset(string.ascii_letters + string.digits + "_.:-[]/,=+%@ \t")
_NAME = frozenset(string.ascii_letters + string.digits + "_.:-")  # HAProxy's own rule for names of backends

_WATCHERS = frozenset(["check", "agent-check", "track"])  # the words by which HAProxy itself lets a server go and come

DOWN, STARTING, UP, STOPPING = range(4)  # srv_op_state of `show servers state`
_OUT = (DOWN, STOPPING)

Key = tuple[str, str]  # backend and server name


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
        servers: What the runtime socket can change.
        pools: The backends in which no other servers are.
        rest: Digest of everything else, without comments and blank lines.
    """

    servers: dict[Key, Line]
    pools: frozenset[str]
    rest: str


class Seen(NamedTuple):
    """A server as the running HAProxy has it.

    Attributes:
        endpoint: Address and port as HAProxy's configuration writes them.
        weight: The weight in use.
        is_maintained: Whether it is in maintenance: it gets nothing new.
        is_drained: Whether it is in HAProxy's own drain, by its administrator and not by its weight.
        is_unwatched: Whether its health checks are switched off.
        operation: HAProxy's word on it: one of DOWN, STARTING, UP, STOPPING.
        unchanged_s: Since when it is as it is, for example in maintenance, whole seconds.
        connection_count: Connections in use.
        line: Its line in the format of a server state file.
    """

    endpoint: str
    weight: int
    is_maintained: bool
    is_drained: bool
    is_unwatched: bool
    operation: int
    unchanged_s: int
    connection_count: int
    line: str

    @property
    def is_set_aside(self) -> bool:
        """Whether an administrator keeps it, or its checks, from their work: what we never do for long."""
        return self.is_maintained or self.is_drained or self.is_unwatched

    @property
    def is_serving(self) -> bool:
        """Whether a client that sticks to it still gets there."""
        return self.operation != DOWN and not self.is_maintained


class Changes(NamedTuple):
    """What turns the servers that run into those that should.

    Attributes:
        commands: For the runtime socket; empty when nothing differs.
        deletions: Likewise, for servers that are in maintenance and wait for their last connection.
    """

    commands: tuple[str, ...]
    deletions: tuple[str, ...]


@functools.lru_cache(maxsize=4)  # what a pass publishes, the next one compares with
def read_layout(text: str) -> Layout:
    """Take a valid configuration apart."""
    servers: dict[Key, Line] = {}
    pools = set()
    rest = hashlib.sha256()
    inherited: tuple[str, ...] = ()
    sections = list(_sections(text))
    # Conditional blocks (`.if`) may leave any line out, and only HAProxy knows which.
    is_certain = not any(line.startswith(".") for section in sections for line in section)
    inherits_plainly = True
    for header, *lines in sections:
        head = header.split()
        is_plain = all(map(_is_plain, lines))
        if head[0] == "defaults":
            inherited, inherits_plainly = (), is_plain
        is_pool = head[0] in ("backend", "listen") and len(head) == 2 and _NAME.issuperset(head[1])
        is_pool = is_pool and is_plain and inherits_plainly and is_certain
        if is_pool:
            pools.add(head[1])
        rest.update(f"{header}\n".encode("utf-8", "surrogateescape"))
        defaults = inherited
        for line in lines:
            if is_pool and _is_word(line, "server"):
                name, server = _read_line(line, defaults)
                servers[head[1], name] = server
                continue
            if _is_word(line, "default-server"):  # it counts for the servers behind it
                defaults += tuple(line.split()[1:])
            rest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
        if head[0] == "defaults":
            inherited = defaults
    return Layout(servers, frozenset(pools), rest.hexdigest()[:16])


def plan(goal: Layout, before: Layout, seen: Mapping[Key, Seen]) -> Changes:
    """Compare the servers that should run with those that do.

    Args:
        goal: What should run.
        before: What the live file says so far: of a server's words only endpoint and weight can be seen running.
        seen: What runs.
    """
    commands: list[str] = []
    # A pass asks that of every server three times, and of most there is nothing to say.
    wrong = [
        key
        for key, line in goal.servers.items()
        if (running := seen.get(key)) is None
        or running.endpoint != line.endpoint
        or running.weight != line.weight
        or running.is_maintained
        or running.is_drained
        or running.is_unwatched
        or (running.operation in _OUT and _WATCHERS.isdisjoint(line.words))
        or (before is not goal and before.servers.get(key, line).words != line.words)
    ]
    for key in sorted(wrong):
        line, running = goal.servers[key], seen.get(key)
        is_other = before.servers.get(key, line).words != line.words
        if running is None or is_other:
            commands += [*(_remove(key) if running else ()), *_add(key, line)]
            continue
        if running.endpoint != line.endpoint:
            commands += _move(key, line)
        else:
            commands += _free(key, line, running, is_new=key not in before.servers)
        if running.weight != line.weight:
            commands.append(f"set server {_name(key)} weight {line.weight}")
    gone = sorted(key for key in seen if key[0] in goal.pools and key not in goal.servers)
    commands += [command for key in gone if not seen[key].is_maintained for command in _remove(key)]
    return Changes(tuple(commands), tuple(f"del server {_name(key)}" for key in gone if seen[key].is_maintained))


def state_file(goal: Layout, before: Layout, seen: Mapping[Key, Seen] | None, header: str) -> str:
    """Return a server state file for a reload: a server goes on as it is, one that is new or moved starts as down.

    HAProxy would take a new server for up until its checks fail, and would let an old line override the address of a
    moved one. A line that goes on has the weight that will be: HAProxy prefers the file's while the configured one is
    the same as before. The format is version 1 of HAProxy's Management Guide, "show servers state".

    Args:
        goal: What will run.
        before: What the live file says so far.
        seen: What runs; None where nobody tells: then what was in the live file has no line, and starts as up.
        header: The line that names the columns.
    """
    lines = ["1", header] if header else ["1"]
    columns = header.removeprefix("# ").split()
    for number, (key, line) in enumerate(sorted(goal.servers.items()), 1):
        running = (seen or {}).get(key)
        if running and running.endpoint == line.endpoint and not running.is_set_aside:
            fields = dict(zip(columns, running.line.split(" "), strict=True))
            fields |= dict.fromkeys(("srv_uweight", "srv_iweight"), str(line.weight))
            lines.append(" ".join(fields.values()))
        elif "check" in line.words and (seen is not None or not _is_at(line.endpoint, before.servers.get(key))):
            address, _, port = line.endpoint.rpartition(":")
            state = f"0 0 {line.weight} {line.weight} 0 1 0 0 6 0 0 0"
            lines.append(f"1 {key[0]} {number} {key[1]} {address.strip('[]')} {state} - {port} - 0 0 - - 0")
    return "\n".join(lines) + "\n"


def _is_at(endpoint: str, line: Line | None) -> bool:
    return line is not None and line.endpoint == endpoint


def _sections(text: str) -> Iterator[list[str]]:
    """Return the lines of each section, its header first; comments and blank lines are left out."""
    section: list[str] = []
    for line in text.split("\n"):  # to HAProxy nothing else ends a line
        stripped, is_header = _read_kind(line)
        if not stripped:
            continue
        if is_header and section:
            yield section
            section = []
        section.append(stripped)
    if section:
        yield section


@functools.lru_cache(maxsize=16384)  # most lines of a configuration were in the one before
def _read_kind(line: str) -> tuple[str, bool]:
    """Return a line without blanks around it, "" for a comment, and whether it begins a section."""
    words = line.split(maxsplit=1)
    if not words or words[0].startswith("#"):
        return "", False
    return line.strip(), words[0] in _SECTIONS


def _is_word(line: str, word: str) -> bool:
    """Tell whether a line is of this keyword and has more words."""
    return line.startswith(word) and line[len(word) : len(word) + 1].isspace()


@functools.lru_cache(maxsize=16384)
def _is_plain(line: str) -> bool:
    words = line.split(maxsplit=3)
    if words[0] not in ("server", "default-server"):
        return words[0] != "server-template"
    return _PLAIN.issuperset(line) and (words[0] != "server" or len(words) > 2)


@functools.lru_cache(maxsize=16384)
def _read_line(line: str, defaults: tuple[str, ...]) -> tuple[str, Line]:
    """Return the name of a server and what its line says."""
    _, name, endpoint, *words = line.split()
    rest = [*defaults, *words]
    weight = 1
    while "weight" in rest[:-1]:
        index = rest.index("weight")
        said = rest[index + 1]
        weight = int(said) if said.isdecimal() and len(said) <= 9 else weight
        del rest[index : index + 2]
    while "no-check" in rest:  # it takes back a `check` before it, and `add server` does not know it
        index = rest.index("no-check")
        rest = [word for word in rest[:index] if word != "check"] + rest[index + 1 :]
    return name, Line(endpoint, weight, tuple(rest))


def _add(key: Key, line: Line) -> list[str]:
    name = _name(key)
    add = f"add server {name} {line.endpoint} weight {line.weight} {' '.join(line.words)}".rstrip()
    return [add, *([f"enable health {name}"] if "check" in line.words else ()), *_start(key, line)]


def _move(key: Key, line: Line) -> list[str]:
    """Give a server another address, by making it anew: its first check is then a matter of milliseconds.

    One that still has connections cannot be removed. It is moved as it is, and its next check may take a second.
    """
    address, _, port = line.endpoint.rpartition(":")
    add, *start = _add(key, line)
    return [*_remove(key), add, f"set server {_name(key)} addr {address.strip('[]')} port {port}", *start]


def _free(key: Key, line: Line, running: Seen, *, is_new: bool) -> list[str]:
    """Let a server and its checks work again, whatever kept them from it.

    A server that serves is not started as down for that: its clients would lose it. What its checks say when they go
    on is soon known. They also raise, or lower, a server that an administrator has called otherwise.
    """
    name = _name(key)
    commands = [f"enable health {name}"] if running.is_unwatched else []
    if running.is_maintained or (running.is_drained and is_new):  # a start that was cut is made again
        return [*commands, *_start(key, line)]
    if running.is_drained:
        commands.append(f"set server {name} state ready")
    if running.operation in _OUT and not _WATCHERS.intersection(line.words):
        commands.append(f"set server {name} health up")
    return commands


def _start(key: Key, line: Line) -> list[str]:
    """Let a server have requests; a checked one starts as down and is raised by its first good check."""
    ready = f"set server {_name(key)} state ready"
    if "check" not in line.words:
        return [ready]
    return [f"set server {_name(key)} state drain", f"set server {_name(key)} health down", ready]


def _remove(key: Key) -> list[str]:
    """Take a server out: what is under way is finished; one that is idle goes at once."""
    return [f"set server {_name(key)} state maint", f"del server {_name(key)}"]


def _name(key: Key) -> str:
    return "/".join(key)
