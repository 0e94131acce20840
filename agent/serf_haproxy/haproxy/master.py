"""HAProxy's master process: its own account of its workers, and the reload."""

import contextlib
import os
import re
import time
from typing import NamedTuple

from serf_haproxy.errors import HaproxyFault, HaproxySilence, SystemFault
from serf_haproxy.haproxy.socket import PATIENT, Limits, ask
from serf_haproxy.services import SUCCESSOR
from serf_haproxy.system.deadlines import time_left
from serf_haproxy.system.processes import Completed, run

ABSENT_S = 2.0  # a supervised HAProxy that was killed is back within this time

_HAND_OVER_S = 2.0
_POLL_S = 0.01
_MASTER_LINE = re.compile(r"^(\d+)\s+master\s+(\d+)(?:\s+\[failed: (\d+)\])?", re.MULTILINE)
_WORKER_LINE = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)


class Account(NamedTuple):
    """What the master says about itself (`show proc`).

    Attributes:
        pid: Its process id: another master has other counts.
        reload_count: Reloads since it started, failed ones included.
        failed_count: Failed reloads since the last good one.
        worker_count: Workers that run, old ones included.
        old_pids: Process ids of the workers that only finish their connections.
    """

    pid: int
    reload_count: int
    failed_count: int
    worker_count: int
    old_pids: tuple[int, ...]


class Master:
    """The supervised master.

    Args:
        socket_path: Its CLI socket (`-S`).
        service_dir: HAProxy's s6 service directory, for a reload where the socket does not answer.
        timeout_s: Time limit of a reload.
        limits: How long to wait for an answer.

    Attributes:
        is_silent: Whether, when it was last asked about itself, it was there and gave no answer: it may be frozen.
    """

    def __init__(self, socket_path: str, service_dir: str, timeout_s: float, limits: Limits = PATIENT) -> None:
        self.socket_path = socket_path
        self.timeout_s = timeout_s
        self._limits = limits
        self._service_dir = service_dir
        self.is_silent = False

    def read_account(self) -> Account:
        """Ask the master about itself.

        Raises:
            HaproxyFault: Its socket does not answer; during a reload that lasts some 100 ms.
        """
        self.is_silent = False
        try:
            answer = ask(self.socket_path, "show proc", self._limits.ask_s)
        except HaproxySilence:
            self.is_silent = True
            raise
        line = _MASTER_LINE.search(answer)
        if not line:
            raise HaproxyFault(f"{self.socket_path}: cannot read the answer to 'show proc': {answer[:200]!a}")
        pid, reload_count, failed_count = (int(count or 0) for count in line.groups())
        old_pids = map(int, _WORKER_LINE.findall(answer.partition("# old workers")[2]))
        return Account(pid, reload_count, failed_count, len(_WORKER_LINE.findall(answer)), tuple(old_pids))

    def reload(self) -> str | None:
        """Have the master load the published file, and wait until it has tried.

        The master's own command is never lost, while a SIGUSR2 during a reload is; so the signal is sent, through s6,
        only where the socket does not answer.

        Returns:
            None when the master reports success, or when only the worker's description can tell: after the signal, and
            where the master died and another one started with the published file. Otherwise the master's words.

        Raises:
            HaproxyFault: No master runs, or it does not answer within the time limit.
        """
        deadline = time.monotonic() + self.timeout_s
        try:
            before = self._poll_account(time.monotonic() + ABSENT_S)
        except HaproxyFault:
            self._signal()
            return None
        answer = self._ask_patiently("reload", deadline)
        if answer.startswith("Success=1"):
            return None
        if answer.startswith("Success=0"):
            return _read_words(answer)
        # HAProxy before 2.7 does not answer: its counters tell.
        while (after := self._poll_account(deadline)).reload_count <= before.reload_count:
            if after.pid != before.pid:
                return None
            if time.monotonic() > deadline:
                raise HaproxyFault(f"{self.socket_path}: no reload in {self.timeout_s:g} s")
            time.sleep(_POLL_S)
        return f"the master reports {after.failed_count} failed reload(s)" if after.failed_count else None

    def hand_over(self) -> Account:
        """Tell the old workers that a newer one runs; return the master's account of itself.

        An old worker keeps its servers as they were. With the built-in template it passes requests that it still gets,
        on connections from before the reload, to the newest worker as soon as it is told. It is told again with each
        call, because the daemon may have died in between. Setting a table entry needs no more than level operator.

        Raises:
            HaproxyFault: The master does not answer.
        """
        account = self._poll_account(time.monotonic() + ABSENT_S)
        deadline = time.monotonic() + _HAND_OVER_S
        for pid in account.old_pids:
            with contextlib.suppress(HaproxyFault):  # it has just ended, or is frozen
                ask(self.socket_path, f"@!{pid} set table {SUCCESSOR} key newest", time_left(deadline))
        return account

    def _poll_account(self, deadline: float) -> Account:
        while True:
            try:
                return self.read_account()
            except HaproxyFault:
                if time.monotonic() > deadline or not os.path.exists(self.socket_path):
                    raise
                time.sleep(_POLL_S)

    def _ask_patiently(self, command: str, deadline: float) -> str:
        """Ask the master, and again while it re-executes itself and its socket refuses."""
        while True:
            try:
                return ask(self.socket_path, command, max(0.1, deadline - time.monotonic()))
            except HaproxyFault:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def _signal(self) -> None:
        """Send SIGUSR2 through s6, but only to a HAProxy that is ready: it would kill one that is starting."""
        status = self._run_s6("s6-svstat", "-o", "up,ready", self._service_dir)
        if status.output.split() != ["true", "true"]:
            where = f"no answer on {self.socket_path}, and {self._service_dir} is not a ready s6 service"
            raise HaproxyFault(f"HAProxy does not run: {where}")
        sent = self._run_s6("s6-svc", "-2", self._service_dir)
        if sent.status:
            raise HaproxyFault(f"s6-svc -2 {self._service_dir} failed: {sent.output.strip()}")

    def _run_s6(self, *argv: str) -> Completed:
        try:
            return run(argv, self.timeout_s)
        except SystemFault as error:
            why = f"HAProxy cannot be reloaded: no answer on {self.socket_path}, and {error}"
            raise HaproxyFault(why) from error


def _read_words(answer: str) -> str:
    lines = [line.strip() for line in answer.splitlines()[1:] if "ALERT" in line]
    return "; ".join(lines) or "the master reports a failed reload"
