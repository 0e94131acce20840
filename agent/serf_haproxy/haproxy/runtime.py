"""HAProxy's runtime socket: what the newest worker runs, how it sees its servers, and commands for it."""

import os
import re
import time
from collections.abc import Sequence

from serf_haproxy.errors import HaproxyFault, HaproxySilence
from serf_haproxy.haproxy.seen import read_seen
from serf_haproxy.haproxy.socket import PATIENT, Limits, ask
from serf_haproxy.haproxy.stat import ServerStatus, read_stat
from serf_haproxy.haproxy.tables import QUESTION, is_learning
from serf_haproxy.haproxy.traffic import read_traffic
from serf_haproxy.policy.snapshot import Running, Seen
from serf_haproxy.services import Key

_AWAKE_S = 1.0
_POLL_S = 0.01
_BATCH_COUNT = 500  # commands on one line
_FEW_COUNT = 50  # servers that are asked for one by one
_ERROR = re.compile(r"\[[0-3]\]: ")
_HEADER = re.compile(r"^(# be_id .*)$", re.MULTILINE)
_PID = re.compile(r"^Pid: (\d+)$", re.MULTILINE)
_UPTIME = re.compile(r"^Uptime_sec: (\d+)$", re.MULTILINE)
_VERSION = re.compile(r"^Version: (.*)$", re.MULTILINE)
_DESCRIPTION = re.compile(r"^description: (.*)$", re.MULTILINE)


class Runtime:
    """The newest worker's CLI.

    The master is asked where two workers may answer: during a reload they share the runtime socket.

    Args:
        socket_path: The runtime socket (`stats socket`).
        master_socket_path: The master's CLI socket, which leads to the newest worker.
        limits: How long to wait for an answer.

    Attributes:
        is_silent: Whether, when it was last asked, a socket was open and no answer came: the worker may be frozen.
    """

    def __init__(self, socket_path: str, master_socket_path: str, limits: Limits = PATIENT) -> None:
        self.socket_path = socket_path
        self.is_silent = False
        self.command_count = 0  # how many commands `change` has given
        self._master_socket_path = master_socket_path
        self._limits = limits

    def read_description(self) -> str | None:
        """Return the `description` of the configuration that the newest worker runs.

        Returns:
            "" for a configuration without one, None when HAProxy does not answer.
        """
        answer = self._ask_info()
        return None if answer is None else _match(_DESCRIPTION, answer)

    def read_age(self) -> tuple[float | None, str]:
        """Return how long the newest worker has run, seconds, and its version; None and "" when it does not answer."""
        answer = self._ask_info() or ""
        age = _match(_UPTIME, answer)
        return float(age) if age else None, _match(_VERSION, answer)

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
            seen = read_seen(answer, header, known)
        except ValueError:  # a column is missing, or not a number
            return Running(description, None, "", is_open=False)
        return Running(description, seen, header, is_open=direct is not None)

    def change(self, commands: Sequence[str]) -> list[str]:
        """Give commands to the runtime socket, many at a time; return HAProxy's complaints.

        Raises:
            HaproxyFault: The socket does not answer.
        """
        complaints = []
        self.command_count += len(commands)
        for start in range(0, len(commands), _BATCH_COUNT):
            batch = "; ".join(["set severity-output number", *commands[start : start + _BATCH_COUNT]])
            complaints += [
                line for line in ask(self.socket_path, batch, self._limits.ask_s).splitlines() if _ERROR.match(line)
            ]
        return complaints

    def ask_newest(self, command: str) -> str | None:
        """Return the newest worker's answer after its `show info`; None where it does not answer."""
        newest = self._ask_info()
        return None if newest is None else self._ask_directly(_match(_PID, newest), command)

    def read_status(self) -> dict[Key, ServerStatus] | None:
        """Return the status of every server by section and name; None when HAProxy does not answer."""
        for path, command in reversed(self._list_ways("show stat -1 4 -1")):
            try:
                return read_stat(ask(path, command, self._limits.ask_s))
            except HaproxyFault:
                continue
        return None

    def read_backups(self, servers: Sequence[Seen]) -> dict[Key, bool]:
        """Return whether each of these servers, and of others, is a backup, by section and name.

        Raises:
            HaproxyFault: The socket does not answer, or not so.
        """
        commands = [f"show stat {server.line.split(' ', 1)[0]} 4 {server.id}" for server in servers]
        if len(commands) > _FEW_COUNT:  # HAProxy goes through all servers for each one
            commands = ["show stat -1 4 -1"]
        answer = ask(self.socket_path, "; ".join(commands), self._limits.ask_s)
        return {key: server.is_backup for key, server in read_traffic(answer).items()}

    def is_learning(self) -> bool:
        """Return whether a reload at this moment would lose the tables of sticky clients."""
        try:
            return is_learning(ask(self.socket_path, QUESTION, self._limits.ask_s))
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
        self.is_silent = False
        for path, words in self._list_ways("show info"):
            try:
                answer = ask(path, words, self._limits.info_s)
            except HaproxySilence:
                self.is_silent = True
                continue
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
        deadline = time.monotonic() + self._limits.ask_s
        while time.monotonic() < deadline:
            try:
                answer = ask(self.socket_path, f"show info; {command}", self._limits.ask_s)
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
                ask(self._master_socket_path, f"@1 {command}", self._limits.ask_s)
                for command in ("show servers state", "show servers conn", "show info")
            ]
        except HaproxyFault:
            return None
        return "\n".join(answers) if _match(_PID, answers[-1]) == pid else None


def _match(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1].strip() if found else ""
