"""The loop of measured weights: it looks at HAProxy's statistics, and moves the weights of servers at run time.

The pass decides the most that a server may get, and writes it into haproxy.cfg; the loop decides how much of that it
gets. HAProxy itself remembers that: a new daemon goes on with the weights that it finds, and so does a new worker.
"""

import logging
import math
import time
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.balance.division import divide, find_factors
from serf_haproxy.balance.evidence import Course
from serf_haproxy.balance.law import FLOOR, Pool, Share, weigh
from serf_haproxy.config.commands import name_of
from serf_haproxy.config.parse import Parser
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.shares import locate_shares, write_shares
from serf_haproxy.errors import HaproxyFault, SystemFault
from serf_haproxy.haproxy.config_file import ConfigFile
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.haproxy.sections import QUESTION, read_numbers
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.haproxy.traffic import Traffic, ask_for, read_traffic
from serf_haproxy.services import Key, format_key
from serf_haproxy.settings import Settings
from serf_haproxy.system.locks import locked

log = logging.getLogger("serf-haproxy")

_LOOK_S = 0.05  # the pause between two looks while requests come
_REST_S = 2.0  # the longest pause while none come
_COST = 50.0  # a pause lasts so many times as long as a look takes of a processor
_ASK_S = 1.0
_FAULT_S, _FAULT_MAX_S = 0.5, 10.0
_NOTE_S, _FRESH_S = 1.0, 10.0  # how often what was found is written down for `status`: new weights, the same weights
_LOW, _FULL = 0.5, 0.95  # a server is logged when its factor falls below the one, and when it is back above the other


# The sections with measured weights. Where a split shares the requests, the versions of the servers; else nothing.
Versions = Mapping[str, Mapping[str, str]]


class Place(NamedTuple):
    """Where servers are among which requests are shared.

    Attributes:
        section: The section.
        is_backup: Whether they are backups: these get requests at other times.
        version: Their version, where a split decides what each version gets.
    """

    section: str
    is_backup: bool
    version: str


class Places(NamedTuple):
    """What the loop reads and writes.

    Attributes:
        runtime: HAProxy's runtime socket.
        config_file: The published configuration, which has the most that each server may get.
        lock_path: The lock of passes: while one decides about a server, the loop does not.
        shares_path: What was found, for `status`.
    """

    runtime: Runtime
    config_file: ConfigFile
    lock_path: str
    shares_path: str


class Balance:
    """Looks at the servers with measured weights whenever that is due.

    Args:
        places: What it reads and writes.
        former: The one before, with other settings, to go on with what it knows.
    """

    def __init__(self, places: Places, former: "Balance | None" = None) -> None:
        self._places = places
        self._pools: dict[Place, Pool] = former._pools if former else {}
        self._low: set[Key] = former._low if former else set()
        self._limits: dict[str, dict[str, int]] = {}
        self._versions: Versions = {}
        self._numbers: dict[str, str] = {}
        self._looked_s: float | None = None
        self._due_s = math.inf
        self._pause_s = _LOOK_S
        self._shares: dict[Key, Share] = {}
        self._noted_s, self._is_noted = 0.0, False
        self._fault_count = 0

    def follow(self, measured: Versions, parser: Parser, has_reloaded: bool) -> None:
        """Take over what a pass has decided.

        Args:
            measured: The sections with measured weights, and versions.
            parser: That of the pass, which has read the published configuration.
            has_reloaded: Whether a new worker runs, which counts from zero.
        """
        text = self._places.config_file.read_live() if measured else None
        servers = parser.read_published(text).servers if text else {}
        before, self._limits, self._versions = self._limits, {}, measured
        for (section, name), line in servers.items():
            if section in measured:
                self._limits.setdefault(section, {})[name] = line.weight
        self._pools = {place: pool for place, pool in self._pools.items() if place.section in self._limits}
        if has_reloaded:
            self._looked_s = None
        if not self._limits:
            self._due_s = math.inf
        elif self._due_s == math.inf or self._limits != before:
            self._due_s = 0.0

    def due_s(self) -> float:
        """Return when the next look is due, on the monotonic clock; infinity without measured weights."""
        return self._due_s

    def look(self) -> None:
        """Look at the statistics if that is due, and change weights; HAProxy's silence is logged once."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        started_s, looked_s, fault_count = time.thread_time(), self._looked_s, self._fault_count
        self._rest(now_s)  # that counts after a fault of any kind
        try:
            with locked(self._places.lock_path, 0.0, "a pass"):
                is_busy = self._change_weights(looked_s)
        except HaproxyFault as error:
            if not fault_count:
                log.warning("%s", f"weights stay as they are: {error}")
            return
        except SystemFault:  # another process makes a pass
            self._due_s, self._fault_count = now_s + _LOOK_S, fault_count
            return
        self._fault_count = 0
        self._note(now_s, is_busy)
        self._pause_s = _LOOK_S if is_busy else min(_REST_S, 2 * self._pause_s)
        self._due_s = now_s + max(self._pause_s, min(_REST_S, _COST * (time.thread_time() - started_s)))

    def _rest(self, now_s: float) -> None:
        """Forget what the counters were, and plan the next look after a pause that grows with each fault."""
        self._fault_count += 1
        self._looked_s = None
        self._due_s = now_s + min(_FAULT_MAX_S, _FAULT_S * 2.0 ** min(self._fault_count, 10))

    def _change_weights(self, before_s: float | None) -> bool:
        """Look and act; return whether requests come.

        Args:
            before_s: When the look before was, None if there was none of this worker.
        """
        traffic = self._read_traffic(is_same_worker=before_s is not None)
        self._looked_s = now_s = time.monotonic()
        elapsed_s = 0.0 if before_s is None else now_s - before_s
        is_busy = False
        commands = []
        for place, group in _group(traffic, self._versions).items():
            weights, shares = self._weigh(place, group, elapsed_s)
            is_busy = is_busy or bool(shares)
            for name, weight in weights.items():
                if weight != group[name].weight:
                    commands.append(f"set server {name_of((place.section, name))} weight {weight}")
            for name, share in shares.items():
                self._report((place.section, name), share._replace(weight=weights[name]))
        complaints = self._places.runtime.change(commands)
        if complaints:
            log.warning("%s", f"HAProxy refuses weights: {'; '.join(complaints[:3])}")
        return is_busy

    def _read_traffic(self, *, is_same_worker: bool) -> dict[Key, Traffic]:
        """Return the counters of the servers with measured weights."""
        path = self._places.runtime.socket_path
        if not is_same_worker or not self._limits.keys() <= self._numbers.keys():
            self._numbers = read_numbers(ask(path, QUESTION, _ASK_S))
        sections = [section for section in self._limits if section in self._numbers]
        if not sections:
            return {}
        traffic = read_traffic(ask(path, "; ".join(ask_for(self._numbers[section]) for section in sections), _ASK_S))
        if {section for section, _ in traffic} != set(sections):
            self._numbers = {}  # another hand has loaded a configuration with other sections
        return traffic

    def _weigh(
        self, place: Place, group: Mapping[str, Traffic], elapsed_s: float
    ) -> tuple[Mapping[str, int], Mapping[str, Share]]:
        """Return the weights that servers should have, where that is known, and what was found while requests come."""
        limits = self._limits.get(place.section, {})
        present = {name: one.weight for name, one in group.items() if one.weight and one.is_up and limits.get(name)}
        is_divided = bool(self._versions.get(place.section))
        pool = self._pools.get(place)
        if pool is None and is_divided:
            factors = find_factors({name: limits[name] for name in present}, present)
            pool = Pool({name: Course(max(FLOOR, factor)) for name, factor in factors.items()})
        self._pools[place], shares = weigh(pool or Pool(), group, limits, elapsed_s)
        if not is_divided:
            return {name: share.weight for name, share in shares.items()}, shares
        factors = {name: course.factor for name, course in self._pools[place].courses.items()}
        return divide({name: limits[name] for name in factors}, factors, present), shares

    def _report(self, key: Key, share: Share) -> None:
        """Keep what was found of a server, and log it where that is news."""
        before = self._shares.get(key)
        self._is_noted = self._is_noted and before is not None and before.weight == share.weight
        self._shares[key] = share
        if share.factor < _LOW and key not in self._low:
            self._low.add(key)
            log.info("%s", f"server {format_key(key)} gets less: {share.explain()}")
        elif share.factor > _FULL and key in self._low:
            self._low.discard(key)
            log.info("%s", f"server {format_key(key)} gets its whole weight again")

    def _note(self, now_s: float, is_busy: bool) -> None:
        """Write down what was found for `status`, now and then, and not while no request comes."""
        pause_s = _NOTE_S if not self._is_noted else _FRESH_S if is_busy else math.inf
        if now_s < self._noted_s + pause_s:
            return
        shares = {key: share for key, share in self._shares.items() if key[1] in self._limits.get(key[0], {})}
        self._shares = shares
        write_shares(
            self._places.shares_path,
            {key: share._asdict() | {"reason": share.explain()} for key, share in shares.items()},
        )
        self._noted_s, self._is_noted = now_s, True


def _group(traffic: Mapping[Key, Traffic], versions: Versions) -> dict[Place, dict[str, Traffic]]:
    """Return the servers by where they are."""
    groups: dict[Place, dict[str, Traffic]] = {}
    for (section, name), one in traffic.items():
        version = versions.get(section, {}).get(name, "")
        groups.setdefault(Place(section, one.is_backup, version), {})[name] = one
    return groups


def make_balance(settings: Settings, former: Balance | None = None) -> Balance:
    """Return the loop for some settings; `former` is the one before."""
    edges = make_edges(settings)
    places = Places(edges.runtime, edges.config_file, edges.state.pass_lock_path, locate_shares(settings))
    return Balance(places, former)
