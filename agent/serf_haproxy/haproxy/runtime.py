"""HAProxy's sockets: what it has applied, and how it sees its servers."""

import csv
import functools
import io
import operator
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serf_haproxy.config.parse import Key, Seen
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.settings import Settings
from serf_haproxy.system.processes import ask

_ASK_S = 5.0
_POLL_S = 0.01
_BATCH_COUNT = 500  # commands on one line
_FORCED_MAINTENANCE, _FORCED_DRAIN = 1, 8  # bits of srv_admin_state
_CHECK_CONFIGURED, _CHECK_ENABLED = 2, 4  # bits of srv_check_state
_COLUMNS = (  # of `show servers state`
    "be_name",
    "srv_name",
    "srv_addr",
    "srv_port",
    "srv_uweight",
    "srv_admin_state",
    "srv_check_state",
    "srv_op_state",
    "srv_time_since_last_change",
)
_CONNECTIONS = 6  # the column used_cur of `show servers conn`
_ERROR = re.compile(r"\[[0-3]\]: ")
_HEADER = re.compile(r"^(# be_id .*)$", re.MULTILINE)
_PID = re.compile(r"^Pid: (\d+)$", re.MULTILINE)
_MASTER_LINE = re.compile(r"^(\d+)\s+master\s+(\d+)(?:\s+\[failed: (\d+)\])?", re.MULTILINE)
_WORKER_LINE = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)
_DESCRIPTION = re.compile(r"^description: (.*)$", re.MULTILINE)


class Master(NamedTuple):
    """The master's own account (`show proc`).

    Attributes:
        pid: Its process id: another one has other counts.
        reload_count: Reloads since it started, failed ones included.
        failed_count: Failed reloads since the last good one.
        worker_count: Workers that run, old ones included.
        old_pids: Process ids of the workers that only finish what they serve.
    """

    pid: int
    reload_count: int
    failed_count: int
    worker_count: int
    old_pids: tuple[int, ...]


class Running(NamedTuple):
    """What a worker runs.

    Attributes:
        description: The `description` of its configuration, "" without one.
        servers: Its servers; None where no socket tells.
        header: The line that names the columns of a server state file, "" where no socket tells.
        is_open: Whether the runtime socket answers: without it the servers may be known, but cannot be changed.
    """

    description: str
    servers: dict[Key, Seen] | None
    header: str
    is_open: bool


class ServerView(NamedTuple):
    """How HAProxy sees one server (`show stat`): for example UP, DOWN, "UP 1/3", DRAIN, MAINT, "no check"."""

    backend: str
    status: str
    address: str
    check: str


def read_master(settings: Settings) -> Master:
    """Ask the master about itself.

    Raises:
        HaproxyFault: Its socket does not answer; during a reload that lasts some 100 ms.
    """
    answer = ask(settings.master_socket, "show proc", _ASK_S)
    line = _MASTER_LINE.search(answer)
    if not line:
        raise HaproxyFault(f"{settings.master_socket}: cannot read the answer to 'show proc': {answer[:200]!a}")
    pid, reload_count, failed_count = (int(count or 0) for count in line.groups())
    old_pids = map(int, _WORKER_LINE.findall(answer.partition("# old workers")[2]))
    return Master(pid, reload_count, failed_count, len(_WORKER_LINE.findall(answer)), tuple(old_pids))


def read_description(settings: Settings) -> str | None:
    """Return the `description` of the configuration that the newest worker runs.

    The master is asked first: while a reload goes on, two workers share the runtime socket, and either may
    answer there.

    Returns:
        "" for a configuration without one, None when HAProxy does not answer.
    """
    answer = _ask_worker(settings, "show info")
    return None if answer is None else _match(_DESCRIPTION, answer)


def read_running(settings: Settings, before: Running | None = None) -> Running | None:
    """Return what the newest worker runs; None when HAProxy does not answer.

    Args:
        settings: The settings.
        before: What it ran a moment ago: servers that have not changed since are not read again, nor are connections.
    """
    newest = _ask_worker(settings, "show info")
    if newest is None:
        return None
    description, pid = _match(_DESCRIPTION, newest), _match(_PID, newest)
    direct = _ask_runtime(settings, pid, "" if before else "; show servers conn")
    answer = _ask_through_master(settings, pid) if direct is None else direct
    if answer is None:
        return Running(description, None, "", is_open=False)
    header = _match(_HEADER, answer)
    known = (before and before.header == header and before.servers) or {}
    return Running(description, _read_seen(answer, header, known), header, is_open=direct is not None)


def change(settings: Settings, commands: Sequence[str]) -> list[str]:
    """Give commands to the runtime socket, many at a time; return what HAProxy complained about.

    Raises:
        HaproxyFault: The socket does not answer.
    """
    complaints = []
    for start in range(0, len(commands), _BATCH_COUNT):
        batch = "; ".join(["set severity-output number", *commands[start : start + _BATCH_COUNT]])
        complaints += [line for line in ask(settings.runtime_socket, batch, _ASK_S).splitlines() if _ERROR.match(line)]
    return complaints


def read_servers(settings: Settings) -> dict[str, ServerView] | None:
    """Return every server that the running HAProxy has, by name; None when it does not answer."""
    for path, command in (
        (settings.runtime_socket, "show stat -1 4 -1"),
        (settings.master_socket, "@1 show stat -1 4 -1"),
    ):
        try:
            answer = ask(path, command, _ASK_S)
        except HaproxyFault:
            continue
        rows = csv.DictReader(io.StringIO(answer.removeprefix("# ")))
        return {
            row["svname"]: ServerView(row["pxname"], row["status"], row["addr"], row["check_status"])
            for row in rows
            if row.get("svname") and row.get("status")
        }
    return None


def _ask_worker(settings: Settings, command: str) -> str | None:
    """Ask the newest worker for its `show info`: through the master, or directly where no master answers."""
    for path, words in ((settings.master_socket, f"@1 {command}"), (settings.runtime_socket, command)):
        try:
            answer = ask(path, words, _ASK_S)
        except HaproxyFault:
            continue
        if "Name: HAProxy" in answer:
            return answer
    return None


def _ask_runtime(settings: Settings, pid: str, more: str) -> str | None:
    """Ask the worker of this process id for its servers; None where the runtime socket is not its, or does not answer.

    While a reload goes on, two workers share that socket, and either may answer.
    """
    deadline = time.monotonic() + _ASK_S
    while time.monotonic() < deadline:
        try:
            answer = ask(settings.runtime_socket, f"show info; show servers state{more}", _ASK_S)
        except HaproxyFault:
            return None
        if _match(_PID, answer) == pid:
            return answer
        time.sleep(_POLL_S)
    return None


def _ask_through_master(settings: Settings, pid: str) -> str | None:
    """Ask the same of the master, which may look but not change; it takes one command at a time."""
    try:
        answers = [
            ask(settings.master_socket, f"@1 {command}", _ASK_S)
            for command in ("show servers state", "show servers conn", "show info")
        ]
    except HaproxyFault:
        return None
    return "\n".join(answers) if _match(_PID, answers[-1]) == pid else None


def _read_seen(answer: str, header: str, known: Mapping[Key, Seen]) -> dict[Key, Seen]:
    """Read `show servers state` and `show servers conn` (HAProxy's Management Guide, section 9.3)."""
    names = header.removeprefix("# ").split()
    if not names:
        return {}
    choose = operator.itemgetter(*map(names.index, _COLUMNS))
    counts: dict[str, int] = {}
    seen = {}
    by_line = {server.line: (key, server) for key, server in known.items()}
    for line in answer.splitlines():
        if line in by_line:
            key, server = by_line[line]
            seen[key] = server
            continue
        fields = line.split(" ")
        if len(fields) == len(names) and fields[0].isdecimal():
            pool, name, address, port, weight, admin, check, operation, unchanged_s = choose(fields)
            endpoint = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            state = _read_state(admin, check, operation)
            seen[pool, name] = Seen(endpoint, int(weight), *state, int(unchanged_s), 0, line)
        elif len(fields) > _CONNECTIONS and "/" in fields[0] and fields[_CONNECTIONS] not in ("0", "-"):
            counts[fields[0]] = int(fields[_CONNECTIONS])
    for (pool, name), server in seen.items() if counts else ():
        if f"{pool}/{name}" in counts:
            seen[pool, name] = server._replace(connection_count=counts[f"{pool}/{name}"])
    return seen


@functools.lru_cache(maxsize=1024)  # there are few of them
def _read_state(admin: str, check: str, operation: str) -> tuple[bool, bool, bool, int]:
    """Return `is_maintained`, `is_drained`, `is_unwatched` and `operation` of `layout.Seen`."""
    return (
        bool(int(admin) & _FORCED_MAINTENANCE),
        bool(int(admin) & _FORCED_DRAIN),
        int(check) & (_CHECK_CONFIGURED | _CHECK_ENABLED) == _CHECK_CONFIGURED,
        int(operation),
    )


def _match(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1].strip() if found else ""
