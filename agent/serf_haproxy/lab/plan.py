"""The parts of a lab before they start: their names, addresses and ports, and the checks of all these."""

import os
from collections.abc import Collection, Iterable, Sequence

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab import balancer as tree
from serf_haproxy.lab import node as web
from serf_haproxy.lab import ports, programs, records, services
from serf_haproxy.lab.records import Balancer, Node, Record
from serf_haproxy.lab.services import NodeOptions, Wish
from serf_haproxy.serf.events import name_fault
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.service import HTTP


def check_vacant(lab_dir: str) -> None:
    """Check that a directory can take a new lab: it is absent or empty, or has only files of a lab that is down.

    Raises:
        InputError: A lab is up there, or the directory has other files.
        SystemFault: The directory cannot be read.
    """
    record = records.load(lab_dir)
    if record and record.is_up:
        raise InputError(
            f"there is a lab at {lab_dir} already; take it down first: serf-haproxy lab down --dir {lab_dir}"
        )
    try:
        content = os.listdir(lab_dir)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SystemFault(f"--dir {lab_dir}: {error.strerror}; choose another directory") from error
    if content and record is None:
        raise InputError(f"--dir {lab_dir}: is not empty and holds no lab; choose another directory, or empty it")


def check_ports(record: Record, balancers: Collection[Balancer], nodes: Collection[Node]) -> None:
    """Check that all ports on which these will listen are free; see `ports.check_free`."""
    listeners = [listener for balancer in balancers for listener in tree.list_listeners(record, balancer)]
    listeners += [listener for node in nodes for listener in web.list_listeners(record, node)]
    ports.check_free(listeners)


def plan_lab(
    lab_dir: str, port_base: int | None, node_count: int, balancer_count: int, wishes: Sequence[Wish] = ()
) -> Record:
    """Return the record of a lab whose parts have not been started.

    Raises:
        InputError: A number is out of range.
    """
    if node_count < 0 or not 0 <= balancer_count <= ports.BALANCER_COUNT:
        allowed = f"nodes must be 0 or more, balancers 0 to {ports.BALANCER_COUNT}"
        raise InputError(f"{node_count} nodes, {balancer_count} balancers: {allowed}")
    base = ports.BASE if port_base is None else port_base
    ports.number_ports(base)
    record = Record(lab_dir, base, programs.choose_environ(os.environ))
    for number in range(1, balancer_count + 1):
        name = f"lb{number}"
        record.balancers[name] = Balancer(name, ports.address_balancer(name))
    if wishes:
        services.plan_services(record, wishes)
    for wish in (Wish(DEFAULT_SERVICE, HTTP, node_count), *wishes):
        for name in services.name_nodes(wish):
            record.nodes[name] = plan_node(record, name, None, NodeOptions(service=wish.name))
    return record


def plan_node(record: Record, name: str, address: str | None, options: NodeOptions) -> Node:
    """Return a new node, by default with an unused address and the lab's port for applications.

    Raises:
        InputError: The address is not on loopback, or the lab has no such service.
    """
    service = services.find_service(record, options.service)
    port = record.ports.app if options.port is None else options.port
    tags = services.make_tags(record, service, port) | dict(options.tags)
    return Node(name, choose_address(record, address), port, tags, service=service)


def check_name(name: str) -> None:
    """Raise InputError for a name that a node cannot have."""
    fault = name_fault(name)
    if fault or ports.is_balancer(name):
        raise InputError(f"node {name!a}: {fault or 'balancers have such names; choose another'}")


def read_tags(pairs: Iterable[str]) -> dict[str, str]:
    """Return the tags in words of the form KEY=VALUE.

    Raises:
        InputError: A word has no key or no equals sign.
    """
    tags = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not key or not sign:
            raise InputError(f"tag {pair!a}: must be KEY=VALUE")
        tags[key] = value
    return tags


def choose_address(record: Record, address: str | None) -> str:
    """Return the given address, checked, or an unused one."""
    return record.take_address() if address is None else ports.read_address(address)
