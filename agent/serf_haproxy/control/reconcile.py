"""One pass: correct, observe, decide, apply, and remember.

`on_step` is called as each step ends, so that a test can interrupt a pass after any of them. Every step can be
repeated, and every decision follows from files and from HAProxy's answers: the next pass repairs what was cut short.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Collection

from serf_haproxy.config.ids import is_id_of
from serf_haproxy.control.attempt import Attempt, find_new
from serf_haproxy.control.conclude import complete, make_record, remember_served
from serf_haproxy.control.corrections import add_early, forget_absent, hear
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.fallback import apply_best, want
from serf_haproxy.control.faults import list_faults
from serf_haproxy.control.hasten import Ask, hasten
from serf_haproxy.control.memory import Memory
from serf_haproxy.control.observe import Given, observe
from serf_haproxy.control.old_workers import look_after_old_workers
from serf_haproxy.control.outcome import NO_PAUSE, Outcome, Patience, Pause, Verdict, look_again_s
from serf_haproxy.control.record import Record
from serf_haproxy.control.withheld import expect_retry
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision, list_versions
from serf_haproxy.policy.orders import explain
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.roster import Roster
from serf_haproxy.services import find_service
from serf_haproxy.settings import Settings
from serf_haproxy.system.locks import locked

_LOCK_S = 60.0
_FEW_COUNT = 100  # members that are decided ahead of a pass


class Reconciler:
    """Makes passes, and owns what one keeps in memory for the next.

    Args:
        settings: The settings.
        memory: The memory of a reconciler with other settings, to go on with.
    """

    def __init__(self, settings: Settings, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self._settings = settings
        self._said = settings.describe()
        self._edges = make_edges(settings)
        self._is_clean = False

    def reconcile(
        self,
        ask: Callable[[], Roster | None],
        is_resync: bool = True,
        on_step: Callable[[str], object] = str,
        pause: Pause = NO_PAUSE,
    ) -> Outcome:
        """Make one pass.

        Args:
            ask: Asks Serf for its roster; returns None when Serf does not answer.
            is_resync: Whether to ask. Serf is asked anyway where the node files alone are ambiguous.
            on_step: Called with the name of each step that has ended.
            pause: How long there must not be a reload.

        Raises:
            SystemFault: Files cannot be read or written, or HAProxy cannot be run; the live file is untouched.
        """
        started_s, settings, edges, memory = time.time(), self._settings, self._edges, self.memory
        with locked(edges.state.pass_lock_path, _LOCK_S, "another pass"):
            edges.set_aside()
            early, complaints = memory.end_ground(), edges.orders.take_given()
            record, served = edges.state.read_record(), edges.state.read_served()
            heard = hear(edges.nodes_dir, ask, self._list_served(served), is_resync, memory.files)
            edges.services_file.copy_authorities(edges.state.read_services(), record.authorities)
            snapshot = observe(given := Given(settings, edges, record, heard))
            on_step("read")
            if heard.roster is None and self._is_file_missing(snapshot):
                heard = hear(edges.nodes_dir, ask, (), True, heard.files)
                snapshot = observe(given := given._replace(heard=heard))
            complaints += edges.orders.take_given()  # what a command gave meanwhile is in the snapshot
            record, snapshot = memory.vetting.vet(given, snapshot, memory.renderer)
            decision = decide(snapshot, memory.memo)
            edges.state.remember_flaps(decision.flaps, snapshot.flaps)
            outcome = self._act(snapshot, decision, record, on_step, pause)
            heard = forget_absent(edges.nodes_dir, add_early(heard, early), decision)
            memory.files = heard.files
            finished = complete(outcome, snapshot, decision, heard, record)
            outcome = memory.silence.explain(finished, snapshot, decision, edges)
            complaints += look_after_old_workers(settings, edges.master, bool(heard.roster) or outcome.has_reloaded)
            complaints += memory.tell(settings, edges, snapshot, decision, outcome)
            outcome = dataclasses.replace(outcome, problems=outcome.problems + complaints)
            self._keep_services(outcome, snapshot, decision)
            memory.remember(remember_served(edges.state, outcome, decision, heard, served), decision)
            faults = list_faults(settings, snapshot, outcome, record)
            self._write(make_record(outcome, snapshot, decision, heard, record), faults, started_s)
            memory.keep_ground(outcome, snapshot, decision, settings, edges)
            on_step("recorded")
        return expect_retry(settings, outcome, record)

    def hasten(self, names: Collection[str], ask: Ask) -> bool:
        """Bring HAProxy to what a few members say, ahead of a pass; return whether the pass may wait a little.

        Args:
            names: The members, of which a change was announced; "" for one that is not known.
            ask: Asks Serf about them.

        Raises:
            SystemFault: A node file cannot be read.
        """
        ground = self.memory.ground
        if ground is None or "" in names or len(names) > _FEW_COUNT:
            return False
        with locked(self._edges.state.pass_lock_path, _LOCK_S, "another pass"):
            return hasten(names, ask, ground, self._edges, self.memory.renderer)

    def list_balancers(self) -> tuple[str, tuple[str, ...]]:
        """Return the name of this balancer's node, "" while it is not known, and those of others that are alive."""
        return self.memory.balancers

    @property
    def command_count(self) -> int:
        """How many commands the passes have given to HAProxy's runtime socket."""
        return self._edges.runtime.command_count

    def list_service_files(self) -> frozenset[str]:
        """Return the files of authorities that the services named in the last pass."""
        return self._edges.services_file.authorities.paths

    def _act(
        self,
        snapshot: Snapshot,
        decision: Decision,
        record: Record,
        on_step: Callable[[str], object],
        pause: Pause,
    ) -> Outcome:
        """Render and apply what was decided, then change certificates: servers do not wait for a trial of these."""
        if order := snapshot.orders.pause:
            return Outcome(Verdict.PAUSED, explain(order), "")
        certificates, running = self._edges.certificates, snapshot.running
        runtime = self._edges.runtime if running is not None and running.is_open else None
        certificates.prepare()
        try:
            outcome = self._change_servers(snapshot, decision, record, on_step, pause)
        except SystemFault:
            certificates.refresh(runtime)
            raise
        faults = certificates.refresh(self._edges.runtime if outcome.verdict is Verdict.RELOADED else runtime)
        return dataclasses.replace(outcome, certificate_faults=faults, certificate_ends=certificates.ends)

    def _change_servers(
        self,
        snapshot: Snapshot,
        decision: Decision,
        record: Record,
        on_step: Callable[[str], object],
        pause: Pause,
    ) -> Outcome:
        """Render and apply what was decided."""
        settings, edges, memory = self._settings, self._edges, self.memory
        renderer = memory.renderer
        socket_path = edges.runtime.choose_path(snapshot.running, snapshot.live or "")
        is_renamed = socket_path != settings.runtime_socket
        named = settings.replace(runtime_socket=socket_path) if is_renamed else settings
        order = snapshot.orders.reload
        patience = Patience(record.frozen_for_s(snapshot.at_ns / 1e9), settings.frozen_worker_s)
        attempt = Attempt(
            edges,
            snapshot.running,
            snapshot.live,
            renderer.parser,
            on_step,
            pause=pause,
            patience=patience,
            left=record.read_left(),
            list_decided=functools.cache(functools.partial(find_new, snapshot, decision, memory.served[0])),
            emptied=memory.emptied,
            hastened=memory.hastened,
            measured=snapshot.services.measured,
            ordered=explain(order) if order else "",
        )
        outcome = apply_best(want(named, snapshot, decision), attempt, renderer)
        if order and outcome.has_reloaded:
            edges.orders.mark_reloaded(order)
        edges.config_file.tidy()
        # A disk that hangs may hang a look into its directories too: not in a pass that finds nothing to do.
        if outcome.verdict is not Verdict.UNCHANGED or not self._is_clean:
            edges.config_file.clean_up()
            edges.state.clean_up()
            edges.orders.clean_up()
            configurations = edges.config_file.read_live(), edges.config_file.read_good()
            edges.services_file.authorities.remove_others(snapshot.services, configurations)
            self._is_clean = True
        if is_renamed and outcome.verdict is Verdict.RELOADED:
            return dataclasses.replace(outcome, again_s=look_again_s(0))
        return outcome

    def _keep_services(self, outcome: Outcome, snapshot: Snapshot, decision: Decision) -> None:
        """Keep the tables of the services file that are in force; those that wait for a reload have no digest yet."""
        state, tables = self._edges.state, snapshot.services.tables
        self.memory.measured = list_versions(snapshot.services.measured, decision)
        if outcome.is_in_force and outcome.digest and tables != state.read_services():
            state.write_services(tables)

    def _write(self, record: Record, faults: list[object], started_s: float) -> None:
        """Write the record with the refused servers, the settings, and the times of the pass, begun at `started_s`."""
        at_s = time.time()
        record = dataclasses.replace(record, faults=faults, settings=self._said, at_s=at_s, took_s=at_s - started_s)
        self._edges.state.write_record(record)

    def _is_file_missing(self, snapshot: Snapshot) -> bool:
        """Return whether HAProxy has a server of ours without a node file, and Serf was not yet asked about it.

        A pass that was cut short may have added the server without writing down that it is served.
        """
        running = (snapshot.running and snapshot.running.servers) or {}
        missing, names = set(), snapshot.services.names
        for (section, name), seen in running.items():
            if name not in snapshot.files and not seen.is_maintained:
                key = find_service(section, names), name
                known = snapshot.known.get(key)
                if (known and known.is_served) or is_id_of(key, seen.id):
                    missing.add(key)
        is_news = not missing <= self.memory.missing
        self.memory.missing = missing
        return is_news

    def _list_served(self, served: str) -> list[str]:
        """Return the names of the nodes that have servers."""
        if served != self.memory.served[0]:
            names = [line.split("\t", 2)[1] for line in served.splitlines() if line.count("\t") > 1]
            self.memory.served = served, names
        return self.memory.served[1]


def reconcile(
    settings: Settings,
    ask: Callable[[], Roster | None],
    is_resync: bool = True,
    on_step: Callable[[str], object] = str,
    pause: Pause = NO_PAUSE,
) -> Outcome:
    """Make one pass without memory of an earlier one; arguments and errors are those of `Reconciler.reconcile`."""
    return Reconciler(settings).reconcile(ask, is_resync, on_step, pause)
