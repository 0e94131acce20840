"""Whether traffic should come to this balancer: what keepalived or a BGP speaker asks each second. Cheap to import.

Nothing is remembered between two questions: the rise and fall belong to the program that asks, which knows how often it
does. HAProxy is asked itself, since it serves without the daemon and without Serf. How current it is follows from files
beside the wake FIFO:

    standby          an operator has set the balancer aside; its content is the reason
    leaving          HAProxy is about to be stopped; its next start removes the file
    answers/status   the daemon renews its time every few seconds
    answers/traffic  what the daemon says: lines of a word and a value (`format_facts`)
"""

import _socket  # the module `socket` would double what a question costs
import os
import time

from serf_haproxy.serf.answers import STALE_S
from serf_haproxy.serf.printing import printable

READY, STALE, UNREADY = 0, 1, 111  # the exit codes: STALE serves, but a balancer that is current is better
RUNTIME_SOCKET, MASTER_SOCKET = "/run/haproxy/admin.sock", "/run/haproxy/master.sock"
STANDBY, LEAVING = "standby", "leaving"

_QUESTION = "show stat -1 2 -1"  # the sections alone, however many servers they have
_ASK_S = 0.4  # HAProxy answers within milliseconds; each of two sockets is asked for so long at most
_ANSWER_BYTES = 4 * 1024 * 1024
_FILE_BYTES = 4096
_MARK_BYTES = 256  # the mark is the last line of the configuration
_TEXT = 200
_MARK = "serf-haproxy-"
# Sections of the built-in template that have no node, or are not for clients.
_NO_SERVICE = ("successor", "web", "handover", "stats")


class Silence(Exception):
    """A socket is open, and no answer comes."""


class Place:
    """Where a balancer's files and sockets are.

    Args:
        home: The directory of the wake FIFO.
        runtime_socket: HAProxy's runtime socket; "" for what the daemon says, else the default.
        master_socket: The master's; the same.
    """

    __slots__ = ("facts", "home", "master_socket", "runtime_socket")

    def __init__(self, home: str, runtime_socket: str = "", master_socket: str = "") -> None:
        self.home = home
        self.facts = _parse(_read(os.path.join(home, "answers", "traffic")))
        self.runtime_socket = runtime_socket or self.facts.get("runtime", RUNTIME_SOCKET)
        self.master_socket = master_socket or self.facts.get("master", MASTER_SOCKET)


def look(place: Place, services: tuple[str, ...] = ()) -> tuple[int, str]:
    """Return whether traffic should come here, and why not; within a second in any case.

    Args:
        place: Where to look.
        services: The services of which each needs a server that is up; without any, one server is enough.

    Returns:
        READY, STALE or UNREADY, and a line of text.
    """
    if said := read_flag(place.home):
        return UNREADY, said
    try:
        answer = _ask_haproxy(place)
    except Silence as silence:
        return UNREADY, f"HAProxy is frozen: {silence}"
    except OSError as error:
        return UNREADY, f"HAProxy does not answer on {place.runtime_socket}: {error.strerror or error}"
    counts, info = read_counts(answer)
    if said := _find_fault(counts, info, services):
        return UNREADY, said
    said = _find_age(place) or _compare(place, info.get("description", ""))
    return (STALE, said) if said else (READY, "")


def describe(code: int, text: str) -> str:
    """Return a line for what `look` has found."""
    word = {READY: "ready", STALE: "stale"}.get(code, "not ready")
    return f"{word}: {printable(text, _TEXT)}" if text else word


def format_facts(paths: tuple[str, str, str], heard_s: int, patience_s: int, stale: str) -> str:
    """Return what the daemon writes for `look` after each pass.

    Args:
        paths: HAProxy's runtime socket, the master's, and the configuration file.
        heard_s: When Serf last answered, seconds since the epoch; 0 for never.
        patience_s: After how long without an answer of Serf's the balancer is stale, seconds.
        stale: Why HAProxy is not as it should be; "" for as it should.
    """
    runtime, master, config = paths
    lines = {"runtime": runtime, "master": master, "config": config, "heard": heard_s, "patience": patience_s}
    return "".join(f"{word} {value}\n" for word, value in (*lines.items(), ("stale", printable(stale, _TEXT))))


def read_counts(answer: str) -> tuple[dict[str, int], dict[str, str]]:
    """Return how many servers with a weight are up in each section, and what `show info` says, by name."""
    info: dict[str, str] = {}
    counts: dict[str, int] = {}
    columns: list[str] = []
    for line in answer.split("\n"):
        if line.startswith("# pxname,"):
            columns = line[2:].split(",")
        elif not columns:
            name, colon, value = line.partition(": ")
            if colon:
                info[name] = value.strip()
        elif line and "act" in columns and "bck" in columns:
            # Texts that may contain a comma come later in the row.
            row = line.split(",", len(columns))
            if row[0] not in _NO_SERVICE and len(row) > max(columns.index("act"), columns.index("bck")):
                counts[row[0]] = sum(int(row[columns.index(name)] or 0) for name in ("act", "bck"))
    return counts, info


def _find_fault(counts: dict[str, int], info: dict[str, str], services: tuple[str, ...]) -> str:
    if info.get("Stopping", "0") != "0":
        return "HAProxy is stopping"
    if missing := [name for name in services if not counts.get(name)]:
        return f"no server is up: {', '.join(missing)}"
    return "" if any(counts.values()) else "no server is up"


def read_flag(home: str) -> str:
    """Return why the balancer was set aside, "" where it was not."""
    for name, said in ((LEAVING, "HAProxy is about to be stopped"), (STANDBY, "it is on standby")):
        path = os.path.join(home, name)
        if os.path.lexists(path):
            reason = " ".join(_read(path).split())
            return f"{said}: {reason}" if reason else said
    return ""


def _ask_haproxy(place: Place) -> str:
    """Return the answers to `show info` and to the question; where no runtime socket is, to the question alone."""
    try:
        answer = _ask(place.runtime_socket, f"show info; {_QUESTION}")
        if "\nStopping: 1\n" in answer:  # a worker that was replaced since the connection: ask its successor
            answer = _ask(place.runtime_socket, f"show info; {_QUESTION}")
    except OSError:
        return _ask(place.master_socket, f"@1 {_QUESTION}")
    return answer


def _ask(path: str, command: str) -> str:
    """Return the answer of one of HAProxy's sockets.

    Raises:
        Silence: There was none in time.
        OSError: No process listens there, or this user may not ask it.
    """
    deadline_s = time.monotonic() + _ASK_S
    cli = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        cli.settimeout(_ASK_S)
        cli.connect(path)
        cli.send(f"{command}\n".encode())
        cli.shutdown(_socket.SHUT_WR)
        size_bytes = 0
        chunks: list[bytes] = []
        while size_bytes < _ANSWER_BYTES:
            cli.settimeout(max(0.001, deadline_s - time.monotonic()))
            chunk = cli.recv(65536)
            if not chunk:
                return b"".join(chunks).decode("utf-8", "replace")
            chunks.append(chunk)
            size_bytes += len(chunk)
        raise Silence(f"{path}: the answer does not end")
    except (TimeoutError, BlockingIOError) as error:  # BlockingIOError: too many questions wait for it already
        raise Silence(f"no answer on {path} in {_ASK_S:g} s") from error
    finally:
        cli.close()


def _find_age(place: Place) -> str:
    """Return why what HAProxy runs may be old, "" while it is current."""
    now_s = time.time()
    try:
        age_s = now_s - os.stat(os.path.join(place.home, "answers", "status")).st_mtime
    except OSError:
        return "the daemon has not reported yet"
    if age_s > STALE_S:
        return f"the daemon has reported nothing for {age_s:.0f} s"
    if said := place.facts.get("stale"):
        return said
    heard, patience = place.facts.get("heard", ""), place.facts.get("patience", "")
    if not (heard.isdecimal() and patience.isdecimal()):
        return "what the daemon has reported cannot be read"
    if int(heard) and now_s - int(heard) > int(patience):
        return f"Serf has said nothing for {now_s - int(heard):.0f} s"
    return "" if int(heard) else "Serf has said nothing yet"


def _compare(place: Place, running: str) -> str:
    """Return that HAProxy runs another configuration than the one published, apart from its servers; else ""."""
    published = _read(place.facts.get("config", ""), _MARK_BYTES).rstrip("\n").rpartition(" ")[2]
    if not published.startswith(_MARK) or not running.startswith(_MARK):
        return ""  # the daemon judges that
    is_same = published.rpartition("-")[2] == running.rpartition("-")[2]
    return "" if is_same else "HAProxy does not run the configuration that was published last"


def _parse(text: str) -> dict[str, str]:
    pairs = (line.partition(" ") for line in text.split("\n"))
    return {word: value for word, _, value in pairs if value}


def _read(path: str, last_bytes: int = 0) -> str:
    """Return a small file's text, or the last bytes of a larger one; "" where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if last_bytes:
                os.lseek(fd, max(0, os.fstat(fd).st_size - last_bytes), os.SEEK_SET)
            return os.read(fd, _FILE_BYTES).decode("utf-8", "replace")
        finally:
            os.close(fd)
    except OSError:
        return ""
