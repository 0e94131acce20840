"""The nodes of lost.py: their applications, and the changes that happen to both."""

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from applications import Application
from balancer import Daemon
from membership import Member, Membership

from integration.proxy import free_port, wait_for

KINDS = ("join", "weight", "leave", "drain", "rejoin", "crash", "port", "undrain")
START_COUNT = 4
SPARE_COUNT = 8
LEAVE_S = 0.5  # a node that leaves keeps serving for this time
EVENT_S = 1.0  # for this time Serf delays an event to coalesce it with others
FAILED_S = 1.0  # from a crash until Serf reports the member as failed; in reality longer
NAMES = [f"web{number}" for number in range(1, 1000)]


class Change(NamedTuple):
    """One change of the membership: when it began, and how long HAProxy took to have it."""

    started_s: float
    kind: str
    is_hinted: bool
    took_s: float


class Fleet:
    """The nodes with their applications."""

    def __init__(self, directory: Path, daemon: Daemon, membership: Membership) -> None:
        self._directory, self._daemon, self._membership = directory, daemon, membership
        self._names = iter(NAMES)
        self._spares: list[Application] = []
        self._ended: list[Application] = []
        self._running: dict[str, Application] = {}
        self._gone: list[str] = []
        self._drained: list[str] = []
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self.done: list[Change] = []

    def prepare(self) -> None:
        """Start spare applications, and wait for the end of those that were stopped."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        while self._ended:
            self._ended.pop().end()
        while len(self._spares) < SPARE_COUNT:
            name = next(self._names)
            address = f"127.0.{1 + len(name)}.{1 + int(name[3:]) % 250}"
            self._spares.append(Application(self._directory, name, address, free_port(address)))

    def end(self) -> None:
        """Kill all applications."""
        for thread in self._threads:
            thread.join()
        for application in (*self._spares, *self._ended, *self._running.values()):
            application.process.kill()
            application.process.wait(10)

    def can(self, kind: str) -> bool:
        """Return whether a change is possible now."""
        return {
            "rejoin": bool(self._gone),
            "undrain": bool(self._drained),
            "leave": len(self._running) - len(self._drained) >= START_COUNT,
            "crash": len(self._running) - len(self._drained) >= START_COUNT,
            "drain": len(self._running) - len(self._drained) >= START_COUNT,
        }.get(kind, True)

    def change(self, kind: str) -> None:
        """Make a change and wait until HAProxy has it."""
        started_s = time.monotonic()
        name, event, is_there = getattr(self, f"_{kind}")()
        member = self._membership.members[name]
        number = next(self._numbers)
        is_hinted = (number + number // len(KINDS)) % 2 == 0  # every second change of each kind
        if is_hinted:
            self._membership.hint(event, [member])
            self._later(EVENT_S, lambda: self._membership.event(event, [member]))
        else:
            self._membership.event(event, [member])
        wait_for(is_there, lambda: f"{kind} of {name}: {self._daemon.up()}", 20)
        self.done.append(Change(started_s, kind, is_hinted, time.monotonic() - started_s))

    def _join(self, name: str = "") -> tuple[str, str, Callable[[], bool]]:
        application = self._spares.pop()
        name = name or application.name
        self._running[name] = application
        self._say("member-join", name, application)
        return name, "member-join", lambda: self._has(name)

    def _rejoin(self) -> tuple[str, str, Callable[[], bool]]:
        return self._join(self._gone.pop(0))

    def _leave(self) -> tuple[str, str, Callable[[], bool]]:
        name, application = self._take()
        self._say("member-leave", name, application)
        self._later(LEAVE_S, application.stop)
        return name, "member-leave", lambda: not self._gets_requests(name)

    def _crash(self) -> tuple[str, str, Callable[[], bool]]:
        name, application = self._take()
        application.crash()
        time.sleep(FAILED_S)
        self._say("member-failed", name, application)
        return name, "member-failed", lambda: not self._gets_requests(name)

    def _weight(self) -> tuple[str, str, Callable[[], bool]]:
        name, application = self._first()
        tags = self._membership.members[name].tags
        weight = "2" if tags.get("weight") != "2" else "1"
        self._say("member-update", name, application, weight=weight)
        return name, "member-update", lambda: self._weight_of(name) == int(weight)

    def _port(self) -> tuple[str, str, Callable[[], bool]]:
        """Move a node to another application on another port; the old one stops a little later."""
        name, before = self._first()
        self._running[name] = self._spares.pop()
        self._say("member-update", name, self._running[name])
        self._later(LEAVE_S + EVENT_S, before.stop)
        self._ended.append(before)
        return name, "member-update", lambda: self._has(name)

    def _drain(self) -> tuple[str, str, Callable[[], bool]]:
        name, application = self._first()
        self._drained.append(name)
        self._say("member-update", name, application, drain="true")
        return name, "member-update", lambda: self._weight_of(name) == 0

    def _undrain(self) -> tuple[str, str, Callable[[], bool]]:
        name = self._drained.pop(0)
        self._say("member-update", name, self._running[name], drain="false")
        return name, "member-update", lambda: self._weight_of(name) > 0

    def _first(self) -> tuple[str, Application]:
        """Return a node that serves, in turn."""
        name = next(name for name in self._running if name not in self._drained)
        self._running[name] = self._running.pop(name)
        return name, self._running[name]

    def _take(self) -> tuple[str, Application]:
        name, application = self._first()
        del self._running[name]
        self._gone.append(name)
        self._ended.append(application)
        return name, application

    def _say(self, kind: str, name: str, application: Application, **tags: str) -> None:
        all_tags = {"role": "web", "port": str(application.port), **tags}
        self._membership.put([Member(name, application.address, all_tags)], kind)

    def _has(self, name: str) -> bool:
        application = self._running[name]
        return self._daemon.up().get(name) == f"{application.address}:{application.port}"

    def _gets_requests(self, name: str) -> bool:
        """Return whether a server gets new requests; a server that drains is up with the weight 0."""
        return self._weight_of(name) > 0 and name in self._daemon.up()

    def _weight_of(self, name: str) -> int:
        return self._daemon.weights().get(name, -1)

    def _later(self, pause_s: float, act: Callable[[], object]) -> None:
        thread = threading.Timer(pause_s, act)
        thread.start()
        self._threads.append(thread)
