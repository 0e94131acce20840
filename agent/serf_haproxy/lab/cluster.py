"""The lab: build a cluster of balancers and nodes, change it, and take it down."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab import balancer as tree
from serf_haproxy.lab import behaviour, launch, plan, ports, processes, programs, records, report, watch
from serf_haproxy.lab import node as web
from serf_haproxy.lab.records import ALIVE, CRASHED, LEFT, Balancer, Node, Record
from serf_haproxy.lab.services import NodeOptions, Wish, change_port

WAIT_S, LEAVE_S = 60.0, 30.0
RETURN_S = 120.0  # a crashed node at a new address takes 38 s, or 76 s when all other nodes had crashed as well


def default_dir(environ: Mapping[str, str]) -> str:
    """Return the directory of a lab when the user names none."""
    home = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "serf-haproxy", "lab")


class Lab:
    """One lab. All its state is in its directory, so several objects and command lines can work on it in turn.

    Methods that start a part take `wait_s`: how long to wait until all balancers serve it (`leave`: until all have
    dropped it); 0 means not to wait. When the time is over, the new part is stopped again and a `SystemFault` says
    what is missing and where the logs are.

    Attributes:
        lab_dir: The directory of the lab, an absolute path.
        port_base: The first port number for `up`; None for the default, or for the number that the lab has.
        settings: Further SERF_HAPROXY_* variables for the balancers that `up` starts.
    """

    def __init__(self, lab_dir: str | os.PathLike[str] | None = None, port_base: int | None = None) -> None:
        self.lab_dir = os.path.abspath(lab_dir or default_dir(os.environ))
        self.port_base = port_base
        self.settings: dict[str, str] = {}

    def up(
        self,
        nodes: int = 3,
        balancers: int = 1,
        wait_s: float = WAIT_S,
        services: Sequence[Wish] = (),
        has_https: bool = False,
    ) -> None:
        """Build the lab: nodes web1, web2, ... behind balancers lb1, lb2, ...

        Args:
            nodes: The number of nodes of the default service.
            balancers: The number of balancers.
            wait_s: See above.
            services: Further services, each with its nodes: shop1, shop2, ...
            has_https: Whether the balancers also listen for clients with TLS; certificates are up to the user.

        Raises:
            InputError: There is a lab already, or an argument or the directory is invalid.
            SystemFault: A port is taken, a program is missing, or a part does not come up.
        """
        tree.check_paths(self.lab_dir)
        plan.check_vacant(self.lab_dir)
        record = plan.plan_lab(self.lab_dir, self.port_base, nodes, balancers, services)
        record.has_https = has_https
        record.environ |= self.settings
        programs.check_present()
        plan.check_ports(record, record.balancers.values(), record.nodes.values())
        try:
            os.makedirs(self.lab_dir, mode=0o700, exist_ok=True)
        except OSError as error:
            raise SystemFault(f"--dir {self.lab_dir}: {error.strerror}; choose another directory") from error
        with records.locked(self.lab_dir):
            plan.check_vacant(self.lab_dir)
            former = records.load(self.lab_dir)
            if former:
                launch.clear(former)
            with launch.undoing(lambda error: launch.abandon(record, error)):
                record.save()
                launch.start(record, record.balancers.values(), record.nodes.values(), wait_s)

    def add(
        self, name: str, address: str | None = None, wait_s: float = WAIT_S, options: NodeOptions | None = None
    ) -> None:
        """Add a node, by default of the default service, with an unused address and the lab's port for applications."""
        plan.check_name(name)
        with self._open() as record:
            if name in record.nodes:
                raise InputError(f"there is a node {name} already; start it again with return, or choose another name")
            added = plan.plan_node(record, name, address, options or NodeOptions())
            launch.enter(record, added, None, wait_s)

    def return_(
        self,
        name: str,
        address: str | None = None,
        port: int | None = None,
        tags: Mapping[str, str] | None = None,
        wait_s: float = RETURN_S,
    ) -> None:
        """Start a node again that left or crashed, by default at an unused address."""
        with self._open() as record:
            former = record.find_node(name)
            if former.state == ALIVE and not web.find_fault(record, former):
                raise InputError(f"node {name} is alive; only a node that left or crashed can return")
            web.crash(record, [former])  # one of its two processes may still run
            former.state = CRASHED if former.state == ALIVE else former.state
            returning = dataclasses.replace(
                former,
                address=plan.choose_address(record, address),
                port=former.port if port is None else port,
                tags=former.tags | change_port(former, port) | dict(tags or {}),
                state=ALIVE,
            )
            launch.enter(record, returning, former, wait_s)

    def leave(self, name: str, wait_s: float = LEAVE_S) -> None:
        """Let a node leave the cluster; its application ends once all balancers have dropped the node.

        Raises:
            SystemFault: A balancer still has the node; its application keeps running, and `leave` can be repeated.
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
        """Kill a node's processes with SIGKILL; the cluster has to detect that by itself."""
        with self._open() as record:
            victim = _find_alive(record, name)
            victim.state = CRASHED
            web.crash(record, [victim])

    def tags(self, name: str, tags: Mapping[str, str], deleted: Sequence[str] = ()) -> None:
        """Change the Serf tags of a live node; a node keeps its tags when it returns."""
        if not tags and not deleted:
            raise InputError(f"no change for the tags of {name}: give KEY=VALUE or --delete KEY")
        with self._open() as record:
            web.change_tags(record, _find_alive(record, name), tags, deleted)

    def slow(self, name: str, times: float | None = None, delay_ms: int | None = None, checks: bool = True) -> None:
        """Make a live node slow: its work takes `times` as long, or each answer `delay_ms` longer.

        Args:
            name: The node.
            times: A factor, None for no change.
            delay_ms: Milliseconds, None for no change.
            checks: Whether the delay is for the answers to health checks too.
        """
        with self._open() as record:
            node = _find_alive(record, name)
            if times is not None:
                behaviour.behave(record, node, times=times)
            if delay_ms is not None:
                behaviour.delay(record, node, delay_ms, checks)

    def break_(self, name: str, status: int) -> None:
        """Have a live node answer each request with a status at once; its health checks stay good."""
        with self._open() as record:
            behaviour.behave(record, _find_alive(record, name), status=status)

    def heal(self, name: str) -> None:
        """Make a slow or broken node ordinary again."""
        with self._open() as record:
            behaviour.heal(record, _find_alive(record, name))

    def balancer_up(self, name: str, wait_s: float = WAIT_S) -> None:
        """Start a balancer that is new or down, and wait until it serves all live nodes."""
        address = ports.address_balancer(name)
        with self._open() as record:
            balancer = record.balancers.get(name) or Balancer(name, address)
            if processes.is_alive(balancer.svscan):
                raise InputError(f"balancer {name} is up already")
            tree.stop(record, [balancer])  # processes that are left if its s6-svscan was killed
            plan.check_ports(record, [balancer], [])
            record.environ |= programs.choose_environ(os.environ)
            record.balancers[name] = balancer
            with launch.undoing(lambda _: tree.stop(record, [balancer])):
                launch.start(record, [balancer], [], wait_s)

    def balancer_down(self, name: str) -> None:
        """Stop a balancer with all its services gracefully; its files stay for the next start."""
        with self._open() as record:
            if name not in record.balancers or not record.balancers[name].svscan:
                raise InputError(f"no balancer {name} is up in the lab at {self.lab_dir}")
            tree.stop(record, [record.balancers[name]])

    def status(self) -> dict[str, Any]:
        """Return all parts of the lab and their states, in the shape of `lab status --json`."""
        return report.describe(self._load())

    def env(self, balancer: str | None = None) -> dict[str, str]:
        """Return the SERF_HAPROXY_* variables of a balancer, by default of the first one."""
        record = self._load()
        name = balancer or next(iter(record.balancers), "lb1")
        if name not in record.balancers:
            raise InputError(f"there is no balancer {name} in the lab at {self.lab_dir}")
        return tree.make_settings_environ(record, record.balancers[name])

    def down(self, keep: bool = False) -> bool:
        """Stop all processes, first gracefully and then with SIGKILL, and remove the lab's files.

        Args:
            keep: Keep the files, to look at them; the next `up` removes them.

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
            raise InputError(records.describe_missing(self.lab_dir))
        if self.port_base not in (None, record.port_base):
            raise InputError(f"--port-base {self.port_base}: the lab at {self.lab_dir} has {record.port_base}")
        return record

    @contextlib.contextmanager
    def _open(self) -> Iterator[Record]:
        """Hold the lock of the lab, which is up."""
        with records.locked(self.lab_dir):
            yield self._load()


def _find_alive(record: Record, name: str) -> Node:
    node = record.find_node(name)
    if node.state != ALIVE:
        raise InputError(f"node {name} has {node.state}; start it again first: serf-haproxy lab return {name}")
    return node
