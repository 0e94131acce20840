"""The slots of a lab: nodes that the autoscaler starts and stops by commands, each of which may be repeated."""

from serf_haproxy.errors import InputError
from serf_haproxy.lab import node as web
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.records import ALIVE, load
from serf_haproxy.lab.services import NodeOptions

_LEAVE_S = 30.0


def list_filled(lab: Lab) -> list[str]:
    """Return the nodes of a lab whose processes run."""
    record = load(lab.lab_dir)
    return [] if record is None else [node.name for node in record.alive_nodes() if not web.find_fault(record, node)]


def fill(lab: Lab, name: str, service: str | None) -> None:
    """Start a node, unless it runs; do not wait until it is served."""
    record = load(lab.lab_dir)
    found = None if record is None else record.nodes.get(name)
    if record is not None and found is not None and found.state == ALIVE and not web.find_fault(record, found):
        return
    if found is None:
        lab.add(name, wait_s=0, options=NodeOptions(service))
    else:
        lab.return_(name, wait_s=0)


def empty(lab: Lab, name: str) -> None:
    """Let a node leave, finish its requests and end, unless it has."""
    record = load(lab.lab_dir)
    found = None if record is None else record.nodes.get(name)
    if record is None or found is None or found.state != ALIVE:
        return
    if web.find_fault(record, found):
        lab.crash(name)  # one of its two processes may still run
        return
    try:
        lab.leave(name, _LEAVE_S)
    except InputError:  # it has just left
        return
