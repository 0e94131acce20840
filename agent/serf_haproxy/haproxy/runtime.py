"""HAProxy's runtime socket: what the newest worker runs, how it sees its servers, and commands for it."""

import functools
import operator
import os
import re
import time
from collections.abc import Mapping, Sequence

from serf_haproxy.errors import HaproxyFault, HaproxySilence
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.haproxy.stat import ServerStatus, read_stat
from serf_haproxy.haproxy.tables import QUESTION, is_learning
from serf_haproxy.policy.snapshot import Running, Seen
from serf_haproxy.services import SUCCESSOR, Key
from serf_haproxy.system.network import format_endpoint

_ASK_S = 5.0
_INFO_S = 2.0  # for `show info`, which takes a worker milliseconds
_AWAKE_S = 1.0
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
    "srv_id",
)
_CONNECTIONS_HEADER = "\n# bkname/svname "  # begins the answer to `show servers conn`
# The servers whose column used_cur, the seventh, is not zero. Neither a section nor a server has a slash in its name.
_CONNECTIONS = re.compile(r"^([^/ \n]+)/([^/ \n]+) (?:[^ \n]+ ){5}([1-9][0-9]*) ", re.MULTILINE)
_ERROR = re.compile(r"\[[0-3]\]: ")
_HEADER = re.compile(r"^(# be_id .*)$", re.MULTILINE)
_PID = re.compile(r"^Pid: (\d+)$", re.MULTILINE)
_DESCRIPTION = re.compile(r"^description: (.*)$", re.MULTILINE)


class Runtime:
    """The newest worker's CLI.

    The master is asked where two workers may answer: during a reload they share the runtime socket.

    Args:
        socket_path: The runtime socket (`stats socket`).
        master_socket_path: The master's CLI socket, which leads to the newest worker.
    """

    def __init__(self, socket_path: str, master_socket_path: str) -> None:
        self.socket_path = socket_path
        self._master_socket_path = master_socket_path

    def read_description(self) -> str | None:
        """Return the `description` of the configuration that the newest worker runs.

        Returns:
            "" for a configuration without one, None when HAProxy does not answer.
        """
        answer = self._ask_info()
        return None if answer is None else _match(_DESCRIPTION, answer)

    def confirm(self, description: str, timeout_s: float) -> bool:
        """Wait until the newest worker reports a description; return whether it does within the time limit."""
        deadline = time.monotonic() + timeout_s
        while self.read_description() != description:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def is_frozen(self) -> bool:
        """Return whether a worker runs that answers within a second neither through the master nor directly."""
        is_silent = False
        for path, words in self._list_ways("show info"):
            try:
                if "Name: HAProxy" in ask(path, words, _AWAKE_S):
                    return False
            except HaproxySilence:
                is_silent = True
            except HaproxyFault:  # no process listens there
                continue
        return is_silent

    def read_running(self, before: Running | None = None) -> Running | None:
        """Return what the newest worker runs; None when HAProxy does not answer.

        Args:
            before: What it ran a moment ago: servers whose line is unchanged, and connections, are not read again.
        """
        newest = self._ask_info()
        if newest is None:
            return None
        description, pid = _match(_DESCRIPTION, newest), _match(_PID, newest)
        direct = self._ask_directly(pid, "show servers state" + ("" if before else "; show servers conn"))
        answer = self._ask_through_master(pid) if direct is None else direct
        if answer is None:
            return Running(description, None, "", is_open=False)
        header = _match(_HEADER, answer)
        known = (before and before.header == header and before.servers) or {}
        try:
            seen = _read_seen(answer, header, known)
        except ValueError:  # a column is missing, or not a number
            return Running(description, None, "", is_open=False)
        return Running(description, seen, header, is_open=direct is not None)

    def change(self, commands: Sequence[str]) -> list[str]:
        """Give commands to the runtime socket, many at a time; return HAProxy's complaints.

        Raises:
            HaproxyFault: The socket does not answer.
        """
        complaints = []
        for start in range(0, len(commands), _BATCH_COUNT):
            batch = "; ".join(["set severity-output number", *commands[start : start + _BATCH_COUNT]])
            complaints += [line for line in ask(self.socket_path, batch, _ASK_S).splitlines() if _ERROR.match(line)]
        return complaints

    def ask_newest(self, command: str) -> str | None:
        """Return the newest worker's answer after its `show info`; None where it does not answer."""
        newest = self._ask_info()
        return None if newest is None else self._ask_directly(_match(_PID, newest), command)

    def read_status(self) -> dict[Key, ServerStatus] | None:
        """Return the status of every server by section and name; None when HAProxy does not answer."""
        for path, command in reversed(self._list_ways("show stat -1 4 -1")):
            try:
                return read_stat(ask(path, command, _ASK_S))
            except HaproxyFault:
                continue
        return None

    def is_learning(self) -> bool:
        """Return whether a reload at this moment would lose the tables of sticky clients."""
        try:
            return is_learning(ask(self.socket_path, QUESTION, _ASK_S))
        except HaproxyFault:
            return False

    def choose_path(self, running: Running | None, live: str) -> str:
        """Return the path by which the next configuration should name the runtime socket.

        A reload passes the old listener on, and a socket file that was removed does not come back. Under another name
        for the same place HAProxy makes it again, and the configuration after that has the usual name.
        """
        path = self.socket_path
        if running is None or running.is_open or os.path.exists(path):
            return path
        directory, name = os.path.split(path)
        other = f"{directory}/./{name}"
        return other if path in live or other in live else path

    def _ask_info(self) -> str | None:
        """Ask the newest worker for its `show info`: through the master, or directly where no master answers."""
        for path, words in self._list_ways("show info"):
            try:
                answer = ask(path, words, _INFO_S)
            except HaproxyFault:
                continue
            if "Name: HAProxy" in answer:
                return answer
        return None

    def _list_ways(self, command: str) -> tuple[tuple[str, str], ...]:
        """Return the sockets that lead to the newest worker, each with the words for a command."""
        return (self._master_socket_path, f"@1 {command}"), (self.socket_path, command)

    def _ask_directly(self, pid: str, command: str) -> str | None:
        """Ask the worker with this process id; None where it does not answer on the runtime socket."""
        deadline = time.monotonic() + _ASK_S
        while time.monotonic() < deadline:
            try:
                answer = ask(self.socket_path, f"show info; {command}", _ASK_S)
            except HaproxyFault:
                return None
            if _match(_PID, answer) == pid:
                return answer
            time.sleep(_POLL_S)
        return None

    def _ask_through_master(self, pid: str) -> str | None:
        """Ask the master the same; it takes one command at a time, and here it may read but not change."""
        try:
            answers = [
                ask(self._master_socket_path, f"@1 {command}", _ASK_S)
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
    seen = {}
    by_line = {server.line: (key, server) for key, server in known.items()}
    states, _, connections = answer.partition(_CONNECTIONS_HEADER)
    for line in states.splitlines():
        if line in by_line:
            key, server = by_line[line]
            seen[key] = server
            continue
        fields = line.split(" ")
        if len(fields) == len(names) and fields[0].isdecimal():
            section, name, address, port, weight, admin, check, operation, unchanged_s, number = choose(fields)
            if section == SUCCESSOR:
                continue
            state, is_checked = _read_state(admin, check, operation)
            seen[section, name] = Seen(
                format_endpoint(address, port), int(weight), *state, int(unchanged_s), 0, line, int(number), is_checked
            )
    for section, name, count in _CONNECTIONS.findall(connections):
        if (section, name) in seen:
            seen[section, name] = seen[section, name]._replace(connection_count=int(count))
    return seen


@functools.lru_cache(maxsize=1024)  # there are few combinations
def _read_state(admin: str, check: str, operation: str) -> tuple[tuple[bool, bool, bool, int], bool]:
    """Return `is_maintained`, `is_drained`, `is_unwatched` and `operation` of `Seen`, and `is_checked`."""
    state = (
        bool(int(admin) & _FORCED_MAINTENANCE),
        bool(int(admin) & _FORCED_DRAIN),
        int(check) & (_CHECK_CONFIGURED | _CHECK_ENABLED) == _CHECK_CONFIGURED,
        int(operation),
    )
    return state, bool(int(check) & _CHECK_CONFIGURED)


def _match(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1].strip() if found else ""
