"""lab.json and its lock: the parts of a lab and their processes, written after each change."""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab.ports import Ports, address_node, number_ports
from serf_haproxy.lab.processes import Process
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.service import TCP
from serf_haproxy.system.files import read_text, write_durably

ALIVE, LEFT, CRASHED = "alive", "left", "crashed"
_FILE = "lab.json"
_FORMER_NODES = "backends"  # the nodes in a lab.json of the previous release; remove it after this one
_LOCK_S = 180.0
_LOCK_POLL_S = 0.05


@dataclasses.dataclass
class Balancer:
    """One balancer. `svscan` is the root process of its s6 tree, None while it is down."""

    name: str
    address: str
    svscan: Process | None = None


@dataclasses.dataclass
class Node:
    """One node: an application with its Serf agent.

    Attributes:
        name: Its name in the Serf cluster.
        address: Its address, in 127.0.0.0/8.
        port: The port of its application.
        tags: Its Serf tags.
        state: The result of the last command for it: `ALIVE` (it was started), `LEFT` or `CRASHED`.
        app: The application, None while it should not run.
        serf: The Serf agent, None while it should not run.
        service: The service that its application offers.
    """

    name: str
    address: str
    port: int
    tags: dict[str, str]
    state: str = ALIVE
    app: Process | None = None
    serf: Process | None = None
    service: str = DEFAULT_SERVICE


@dataclasses.dataclass
class Service:
    """One service beside the default one.

    Attributes:
        name: Its name.
        mode: http or tcp.
        port: The port for its clients on every balancer; 0 for mode http, whose clients use the frontend.
        most: The greatest number of servers that the autoscaler may start; 0: it does not scale.
    """

    name: str
    mode: str
    port: int = 0
    most: int = 0


@dataclasses.dataclass
class Record:
    """One lab.

    Attributes:
        lab_dir: The directory with all its files, an absolute path.
        port_base: The first of its port numbers.
        environ: The variables that the user of `up` set for all processes; see `programs.choose_environ`.
        address_count: Number of addresses of nodes that have been given out.
        is_up: Whether its processes run; if not, only logs are left.
        node_dirs: The subdirectory in which each node has a directory of its own.
        balancers: The balancers by name.
        nodes: The nodes by name.
        services: The services beside the default one, by name.
        has_https: Whether the balancers listen for clients with TLS too.
    """

    lab_dir: str
    port_base: int
    environ: dict[str, str] = dataclasses.field(default_factory=dict)
    address_count: int = 0
    is_up: bool = True
    node_dirs: str = "nodes"
    balancers: dict[str, Balancer] = dataclasses.field(default_factory=dict)
    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    services: dict[str, Service] = dataclasses.field(default_factory=dict)
    has_https: bool = False

    @property
    def ports(self) -> Ports:
        """The port numbers of all parts."""
        return number_ports(self.port_base)

    def save(self) -> None:
        """Write lab.json."""
        table = dataclasses.asdict(self)
        del table["lab_dir"]
        write_durably(os.path.join(self.lab_dir, _FILE), json.dumps(table, indent=1) + "\n", 0o600)

    def take_address(self) -> str:
        """Return an address that no node has had."""
        taken = {node.address for node in self.nodes.values()}
        while True:
            self.address_count += 1
            address = address_node(self.address_count)
            if address not in taken:
                return address

    def is_tcp(self, service: str) -> bool:
        """Return whether a service is of mode tcp."""
        return service in self.services and self.services[service].mode == TCP

    def running_balancers(self) -> list[Balancer]:
        """Return the balancers that should be up."""
        return [balancer for balancer in self.balancers.values() if balancer.svscan]

    def alive_nodes(self) -> list[Node]:
        """Return the nodes that should be alive."""
        return [node for node in self.nodes.values() if node.state == ALIVE]

    def find_node(self, name: str) -> Node:
        """Return a node; raise InputError when no node has that name."""
        if name not in self.nodes:
            known = ", ".join(self.nodes) or "none"
            raise InputError(f"there is no node {name!a} in the lab at {self.lab_dir}; its nodes: {known}")
        return self.nodes[name]


def load(lab_dir: str) -> Record | None:
    """Read lab.json, also that of the previous release; return None when there is no such file.

    Raises:
        SystemFault: The file is damaged.
    """
    path = os.path.join(lab_dir, _FILE)
    text = read_text(path)
    if text is None:
        return None
    try:
        table: dict[str, Any] = json.loads(text)
        if _FORMER_NODES in table and "nodes" not in table:
            table |= {"nodes": table.pop(_FORMER_NODES), "node_dirs": _FORMER_NODES}
        balancers, nodes, services = table.pop("balancers"), table.pop("nodes"), table.pop("services", {})
        record = Record(lab_dir, **table)
        record.balancers = {name: Balancer(**_revive(entry)) for name, entry in balancers.items()}
        record.nodes = {name: Node(**_revive(entry)) for name, entry in nodes.items()}
        record.services = {name: Service(**entry) for name, entry in services.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SystemFault(f"{path} is damaged ({error}); stop its processes by hand and remove {lab_dir}") from error
    return record


def forget(lab_dir: str) -> None:
    """Remove lab.json."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(lab_dir, _FILE))


@contextlib.contextmanager
def locked(lab_dir: str) -> Iterator[None]:
    """Hold the lock of a lab for the length of the block.

    The lock is on the lab's directory itself, so that no lock file is left. `down` may remove the directory while
    another command waits for the lock; that command then opens the path again.

    Raises:
        InputError: There is no such directory.
        SystemFault: The directory cannot be opened, or another command holds the lock for too long.
    """
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fd = os.open(lab_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise InputError(describe_missing(lab_dir)) from error
            raise SystemFault(f"cannot open {lab_dir}: {error.strerror}") from error
        try:
            if _lock(fd, lab_dir, deadline):
                yield
                return
        finally:
            os.close(fd)


def describe_missing(lab_dir: str) -> str:
    """Return the error message for a lab that does not exist."""
    return f"there is no lab at {lab_dir}; start one with: serf-haproxy lab up --dir {lab_dir}"


def _lock(fd: int, lab_dir: str, deadline: float) -> bool:
    """Lock an open directory; return False when its path has meanwhile been removed or replaced."""
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SystemFault(f"another lab command is at work on {lab_dir}; try again later") from None
            time.sleep(_LOCK_POLL_S)
            continue
        try:
            return os.path.samestat(os.fstat(fd), os.stat(lab_dir))
        except FileNotFoundError:
            return False


def _revive(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with its JSON lists turned into processes."""
    return {key: Process(*value) if isinstance(value, list) else value for key, value in entry.items()}
