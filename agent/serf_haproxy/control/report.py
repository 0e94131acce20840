"""The report: snapshot, decision, HAProxy's view and the last outcome. The one source of all that is shown."""

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from serf_haproxy.control.answers import DOWN, UNKNOWN, Answer, ask_haproxy, ask_page, ask_serf, look_at_daemon
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.memory import Memory
from serf_haproxy.control.preview import look
from serf_haproxy.control.record import Record
from serf_haproxy.control.scaled import Scaled, read_scaled
from serf_haproxy.control.shares import locate_shares, read_shares
from serf_haproxy.haproxy import readiness, workers
from serf_haproxy.haproxy.socket import PROMPT
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.haproxy.workers import OldWorkers
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf import nodes
from serf_haproxy.services import Key
from serf_haproxy.settings import Settings
from serf_haproxy.system.locks import is_locked


class Report(NamedTuple):
    """What there is to know about a balancer.

    Attributes:
        settings: The settings.
        snapshot: What was read.
        decision: What follows from it: what a pass without Serf's roster would decide.
        record: What the last pass left behind.
        servers: HAProxy's status of each server, by service and node; None when HAProxy does not answer.
        daemon: Whether the daemon runs.
        old_workers: HAProxy's old workers; None when the master does not answer.
        shares: What servers with measured weights get, and why (`control.shares`).
        serf: Whether the Serf agent answers now.
        haproxy: Whether HAProxy answers now.
        is_master_silent: Whether HAProxy's master is there and does not answer, although no pass reloads it now.
        standby: Why traffic should go to another balancer, by an operator's word; "" where it should not.
        scaled: What the autoscaler says of the services that scale, by name (`control.scaled`).
        page: Whether the web process answers now; UNKNOWN where it was not asked.
    """

    settings: Settings
    snapshot: Snapshot
    decision: Decision
    record: Record
    servers: Mapping[Key, ServerStatus] | None
    daemon: Answer
    old_workers: OldWorkers | None
    shares: Mapping[Key, dict[str, Any]] = {}
    serf: Answer = Answer()
    haproxy: Answer = Answer()
    is_master_silent: bool = False
    standby: str = ""
    scaled: Mapping[str, Scaled] = {}
    page: Answer = Answer()

    @property
    def is_daemon_running(self) -> bool | None:
        """Whether the daemon's process is there; None when this user may not know."""
        return None if self.daemon.state == UNKNOWN else self.daemon.state != DOWN

    @property
    def at_s(self) -> float:
        """When it was read, seconds since the epoch."""
        return self.snapshot.at_ns / 1e9


def read_report(settings: Settings) -> Report:
    """Return one report, as `Reader` does, and whether the web process answers."""
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(ask_page, settings)
        report = Reader(settings).read()
        return report._replace(page=page.result())


class Reader:
    """Reads reports one after another; what has not changed since the one before is not read again.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._edges = make_edges(settings, PROMPT)
        self._memory = Memory()

    def read(self) -> Report:
        """Observe and decide as a pass does, without acting.

        It takes less than two seconds, even if HAProxy or Serf hangs.

        Raises:
            SystemFault: The node directory or the published configuration cannot be read.
        """
        nodes.check_dir(self._settings.nodes_dir)
        self._edges.services_file.authorities.forget()
        with ThreadPoolExecutor(2) as pool:
            serf = pool.submit(ask_serf, self._settings)
            old_workers = pool.submit(workers.measure_old, self._edges.master)
            return self._decide(serf, old_workers)

    def _decide(self, serf: "Future[Answer]", old_workers: "Future[OldWorkers | None]") -> Report:
        settings, edges = self._settings, self._edges
        _, record, snapshot, decision, _ = look(settings, edges, self._memory, is_only_shown=True)
        haproxy = ask_haproxy(edges, snapshot.running)
        rows = edges.runtime.read_status() if snapshot.running else None
        places = snapshot.view.places
        return Report(
            settings,
            snapshot,
            decision,
            record,
            None if rows is None else {key: rows[place] for key, place in places.items() if place in rows},
            look_at_daemon(edges.state),
            old_workers.result(),
            read_shares(locate_shares(settings)) if snapshot.services.measured else {},
            serf.result(),
            haproxy,
            edges.master.is_silent and not is_locked(edges.state.pass_lock_path),
            readiness.read_flag(os.path.dirname(settings.wake_fifo)),
            _read_scaled(settings, snapshot),
        )


def _read_scaled(settings: Settings, snapshot: Snapshot) -> dict[str, Scaled]:
    """Return what the autoscaler says of the services that scale; notes of others are of a time before."""
    names = {service.name for service in snapshot.services.listed if service.scale}
    found = read_scaled(settings.state_dir) if names else {}
    return {name: one for name, one in found.items() if name in names}
