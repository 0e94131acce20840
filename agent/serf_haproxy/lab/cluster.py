"""The lab: a cluster of balancers and backends that is built, disturbed and taken down."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab import backend as web
from serf_haproxy.lab import balancer as tree
from serf_haproxy.lab import launch, plan, ports, processes, programs, records, report, watch
from serf_haproxy.lab.records import ALIVE, CRASHED, LEFT, Backend, Balancer, Record

WAIT_S, LEAVE_S = 60.0, 30.0
RETURN_S = 120.0  # a crashed one under a new address: 38 s, and 76 s when everybody else had crashed as well


def default_dir(environ: Mapping[str, str]) -> str:
    """Return the directory of a lab for which none is named."""
    home = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "serf-haproxy", "lab")


class Lab:
    """One lab; all that it knows is in its directory, so objects and command lines can take turns.

    Every method that starts something takes `wait_s`: how long to wait until that is served through every balancer
    (`leave`: dropped by every balancer), 0 for not at all. When it is not, what was started is stopped again, and a
    `SystemFault` says what is missing and where the logs are.

    Attributes:
        lab_dir: Its directory, an absolute path.
        port_base: The first of its ports for `up`; None for the default, or for what it came up with.
    """

    def __init__(self, lab_dir: str | os.PathLike[str] | None = None, port_base: int | None = None) -> None:
        self.lab_dir = os.path.abspath(lab_dir or default_dir(os.environ))
        self.port_base = port_base

    def up(self, backends: int = 3, balancers: int = 1, wait_s: float = WAIT_S) -> None:
        """Build the lab: backends web1, web2, ... behind balancers lb1, lb2, ...

        Raises:
            InputError: There is a lab already, or an argument or the directory is wrong.
            SystemFault: A port is taken, a program is missing, or something does not come up.
        """
        tree.check_paths(self.lab_dir)
        plan.check_vacant(self.lab_dir)
        record = plan.plan_lab(self.lab_dir, self.port_base, backends, balancers)
        programs.check_present()
        plan.check_ports(record, record.balancers.values(), record.backends.values())
        try:
            os.makedirs(self.lab_dir, mode=0o700, exist_ok=True)
        except OSError as error:
            raise SystemFault(f"--dir {self.lab_dir}: {error.strerror}; choose another") from error
        with records.locked(self.lab_dir):
            plan.check_vacant(self.lab_dir)
            former = records.load(self.lab_dir)
            if former:
                launch.clear(former)
            with launch.undoing(lambda error: launch.abandon(record, error)):
                record.save()
                launch.start(record, record.balancers.values(), record.backends.values(), wait_s)

    def add(
        self,
        name: str,
        address: str | None = None,
        port: int | None = None,
        tags: Mapping[str, str] | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        """Add a backend: on a fresh address and the lab's port, unless others are given."""
        plan.check_name(name)
        with self._open() as record:
            if name in record.backends:
                raise InputError(f"there is a backend {name} already; bring it back with return, or take another name")
            added = plan.plan_backend(record, name, address, port, tags or {})
            launch.enter(record, added, None, wait_s)

    def return_(
        self,
        name: str,
        address: str | None = None,
        port: int | None = None,
        tags: Mapping[str, str] | None = None,
        wait_s: float = RETURN_S,
    ) -> None:
        """Start a backend again that left or crashed: on a fresh address unless one is given."""
        with self._open() as record:
            former = record.find_backend(name)
            if former.state == ALIVE and not web.find_fault(record, former):
                raise InputError(f"backend {name} is alive; only one that left or crashed can return")
            web.crash(record, [former])  # a process of it that is left
            former.state = CRASHED if former.state == ALIVE else former.state
            changed = {} if port is None else {"port": str(port)}
            returning = dataclasses.replace(
                former,
                address=plan.choose_address(record, address),
                port=former.port if port is None else port,
                tags=former.tags | changed | dict(tags or {}),
                state=ALIVE,
            )
            launch.enter(record, returning, former, wait_s)

    def leave(self, name: str, wait_s: float = LEAVE_S) -> None:
        """Let a backend leave the cluster; once no balancer has it any more, its application ends.

        Raises:
            SystemFault: A balancer has it still; its application goes on, and `leave` can be repeated.
        """
        with self._open() as record:
            leaving = _find_alive(record, name)
            web.leave(record, leaving)
            if wait_s:
                watch.wait_dropped(record, record.running_balancers(), leaving, wait_s)
            web.finish(record, leaving)
            leaving.state = LEFT
            record.save()

    def crash(self, name: str) -> None:
        """Kill a backend's processes; the cluster finds out by itself."""
        with self._open() as record:
            victim = _find_alive(record, name)
            victim.state = CRASHED
            web.crash(record, [victim])

    def tags(self, name: str, tags: Mapping[str, str], deleted: Sequence[str] = ()) -> None:
        """Change the Serf tags of a live backend; it keeps them when it returns."""
        if not tags and not deleted:
            raise InputError(f"no change for the tags of {name}: give KEY=VALUE or --delete KEY")
        with self._open() as record:
            web.change_tags(record, _find_alive(record, name), tags, deleted)

    def balancer_up(self, name: str, wait_s: float = WAIT_S) -> None:
        """Start a balancer, a new one or one that is down, and wait until it serves all live backends."""
        address = ports.address_balancer(name)
        with self._open() as record:
            balancer = record.balancers.get(name) or Balancer(name, address)
            if processes.is_alive(balancer.svscan):
                raise InputError(f"balancer {name} is up already")
            tree.stop(record, [balancer])  # what is left of one that was killed
            plan.check_ports(record, [balancer], [])
            record.environ |= programs.choose_environ(os.environ)
            record.balancers[name] = balancer
            with launch.undoing(lambda _: tree.stop(record, [balancer])):
                launch.start(record, [balancer], [], wait_s)

    def balancer_down(self, name: str) -> None:
        """Stop a whole balancer gracefully; its files stay for its return."""
        with self._open() as record:
            if name not in record.balancers or not record.balancers[name].svscan:
                raise InputError(f"there is no balancer {name} that is up in the lab at {self.lab_dir}")
            tree.stop(record, [record.balancers[name]])

    def status(self) -> dict[str, Any]:
        """Return what there is and whether it runs, in the shape of `lab status --json`."""
        return report.describe(self._load())

    def env(self, balancer: str | None = None) -> dict[str, str]:
        """Return the SERF_HAPROXY_* variables of a balancer; of the first one unless named."""
        record = self._load()
        name = balancer or next(iter(record.balancers), "lb1")
        if name not in record.balancers:
            raise InputError(f"there is no balancer {name} in the lab at {self.lab_dir}")
        return tree.settings_environ(record, record.balancers[name])

    def down(self, keep: bool = False) -> bool:
        """Stop everything, gracefully, then by force, and remove the lab's files.

        Args:
            keep: Leave the files, to look at them; the next `up` removes them.

        Returns:
            Whether there was a lab.
        """
        if records.load(self.lab_dir) is None:
            return False
        with records.locked(self.lab_dir):
            record = records.load(self.lab_dir)
            if record is None:
                return False
            launch.stop_all(record)
            if not keep:
                launch.remove(record)
        return True

    def _load(self) -> Record:
        record = records.load(self.lab_dir)
        if record is None or not record.is_up:
            raise InputError(records.missing(self.lab_dir))
        if self.port_base not in (None, record.port_base):
            raise InputError(f"--port-base {self.port_base}: the lab at {self.lab_dir} has {record.port_base}")
        return record

    @contextlib.contextmanager
    def _open(self) -> Iterator[Record]:
        """Hold the lab, which is up, for oneself."""
        with records.locked(self.lab_dir):
            yield self._load()


def _find_alive(record: Record, name: str) -> Backend:
    backend = record.find_backend(name)
    if backend.state != ALIVE:
        raise InputError(f"backend {name} has {backend.state}; bring it back first: serf-haproxy lab return {name}")
    return backend
