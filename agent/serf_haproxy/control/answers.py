"""Who answers at this moment: the Serf agent, HAProxy, and the web process. Each is asked for a short time only."""

import contextlib
import os
import socket
import time
from typing import NamedTuple

from serf_haproxy.control.edges import Edges, find_serf
from serf_haproxy.control.state import State
from serf_haproxy.errors import SerfFault, SerfRefusal, SerfSilence
from serf_haproxy.policy.snapshot import Running
from serf_haproxy.serf.roster import Roster
from serf_haproxy.serf.rpc import Connection
from serf_haproxy.settings import Settings, variable
from serf_haproxy.system.locks import is_locked, read_holder
from serf_haproxy.system.processes import is_stopped

UP, DOWN, FROZEN, UNKNOWN = "up", "down", "frozen", "unknown"

_SERF_S = 0.6  # the Serf agent answers within milliseconds
_PAGE_S = 0.9
_QUESTION = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Answer(NamedTuple):
    """Whether a program answers.

    Attributes:
        state: One of UP, DOWN, FROZEN (it is there and does not answer) and UNKNOWN (this user may not ask).
        fault: What is wrong, "" while it is up.
        age_s: How long it has run, seconds; None where that is not known.
        version: Its version, "" where that is not known.
    """

    state: str = UNKNOWN
    fault: str = ""
    age_s: float | None = None
    version: str = ""


def ask_serf(settings: Settings) -> Answer:
    """Return whether the Serf agent answers."""
    path = settings.rpc_auth_file
    if path and os.path.exists(path) and not os.access(path, os.R_OK):
        return Answer(UNKNOWN, f"this user may not read {path}, and so cannot ask Serf")
    try:
        with _connect(settings) as connection:
            connection.read_self_name()
    except SerfRefusal as fault:
        return Answer(UNKNOWN, f"{fault}; does {variable('rpc_auth_file')} name the file with its key?")
    except SerfFault as fault:
        return Answer(FROZEN if isinstance(fault, SerfSilence) else DOWN, str(fault))
    return Answer(UP)


def ask_roster(settings: Settings) -> Roster | None:
    """Return what the Serf agent says of all members now; None when it does not answer."""
    try:
        with _connect(settings) as connection:
            return connection.read_roster()
    except SerfFault:
        return None


def _connect(settings: Settings) -> contextlib.closing[Connection]:
    address = find_serf(settings)
    return contextlib.closing(Connection(address._replace(timeout_s=min(_SERF_S, address.timeout_s))))


def look_at_daemon(state: State) -> Answer:
    """Return whether the daemon runs: it holds a lock, and can be stopped as by SIGSTOP. It is not asked."""
    has_lock = is_locked(state.daemon_lock_path)
    if not has_lock and not is_locked(state.former_lock_path):
        return Answer(UNKNOWN) if has_lock is None else Answer(DOWN, "it does not run")
    pid = read_holder(state.daemon_lock_path) if has_lock else None
    if pid and is_stopped(pid):
        return Answer(FROZEN, f"its process {pid} is stopped, as by SIGSTOP")
    return Answer(UP, "", _measure_age_s(state.daemon_lock_path))


def _measure_age_s(path: str) -> float | None:
    """Return how long ago a process wrote its name into its lock; None where that cannot be found out."""
    try:
        return max(0.0, time.time() - os.stat(path).st_mtime)
    except OSError:
        return None


def ask_page(settings: Settings) -> Answer:
    """Return whether the web process answers; UNKNOWN where none is wanted."""
    if not (bind := settings.web_bind):
        return Answer()
    try:
        said = _ask_page(bind)
    except OSError as error:
        is_silent = isinstance(error, TimeoutError)
        why = "no answer" if is_silent else error.strerror or str(error)
        return Answer(FROZEN if is_silent else DOWN, f"the web process does not answer at {bind}: {why}")
    if not said.startswith(b"HTTP/1.1 "):
        return Answer(FROZEN, f"{bind} is the place of another program, not of the web process")
    return Answer(UP)


def _ask_page(bind: str) -> bytes:
    if bind.startswith("/"):
        link = socket.socket(socket.AF_UNIX)
        place: str | tuple[str, int] = bind
    else:
        host, _, port = bind.rpartition(":")
        host = host.strip("[]")
        link = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        place = (host if host not in ("", "*") else "127.0.0.1", int(port))
    with link:
        link.settimeout(_PAGE_S)
        link.connect(place)
        link.sendall(_QUESTION)
        return link.recv(64)


def ask_haproxy(edges: Edges, running: Running | None) -> Answer:
    """Return whether HAProxy answers.

    Args:
        edges: Where HAProxy is.
        running: What it said a moment ago; None when it gave no answer.
    """
    if running is not None:
        return Answer(UP, "", *edges.runtime.read_age())
    paths = sorted({edges.master.socket_path, edges.runtime.socket_path})
    if edges.runtime.is_silent:
        return Answer(FROZEN, f"HAProxy is there and does not answer on {' or '.join(paths)}")
    if refused := [path for path in paths if os.path.exists(path) and not os.access(path, os.W_OK)]:
        return Answer(UNKNOWN, f"this user may not ask HAProxy on {' or '.join(refused)}")
    return Answer(DOWN, f"no HAProxy listens on {' or '.join(paths)}")
