"""Start parts of a lab, wait until they are served, and undo the start when they are not; stop all parts."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator

from serf_haproxy.errors import SystemFault
from serf_haproxy.lab import balancer as tree
from serf_haproxy.lab import node as web
from serf_haproxy.lab import plan, processes, records, watch
from serf_haproxy.lab.records import LEFT, Balancer, Node, Record

_APPS_S = 35.0  # an application waits up to 30 s for requests in flight
_SERF_S = 0.5
_JOIN_S = 1.0


def start(
    record: Record,
    balancers: Collection[Balancer],
    nodes: Collection[Node],
    wait_s: float,
    is_return: bool = False,
) -> None:
    """Start balancers and nodes, and wait until the new balancers serve all nodes and all balancers the new nodes.

    Args:
        record: The lab; it contains the balancers and nodes.
        balancers: The balancers to start.
        nodes: The nodes to start.
        wait_s: How long to wait until they are served; 0 means not to wait.
        is_return: The cluster may still know these nodes at their former addresses. Until it has forgotten those,
            Serf agents at the new addresses end by themselves and are started again.

    Raises:
        SystemFault: A part does not come up, or is not served in time.
    """
    deadline = time.monotonic() + wait_s
    for node in nodes:
        web.start_app(record, node)
    for balancer in balancers:
        tree.start(record, balancer)
    for node in nodes:
        web.wait_app(record, node)
        web.start_serf(record, node)
    for node in nodes:
        web.wait_serf(record, node)
    if wait_s:
        watch.wait_ready(record, balancers, wait_s)
        _wait(record, balancers, nodes, max(1.0, deadline - time.monotonic()), is_return)


@contextlib.contextmanager
def undoing(undo: Callable[[BaseException], None]) -> Iterator[None]:
    """Call `undo` when the block fails or is interrupted; further signals are held until that is done."""
    try:
        yield
    except BaseException as error:
        with processes.hold_signals():
            undo(error)
        raise


def stop_all(record: Record) -> None:
    """Stop all parts: balancers first, so that they do not react to the end of the nodes.

    A Serf agent that is the last of its cluster waits 3 s for an acknowledgement of its leave. Nothing depends on
    these leaves, so the Serf agents of the nodes get only a moment before they are killed.
    """
    tree.stop(record, record.balancers.values())
    nodes = record.nodes.values()
    for node in nodes:
        processes.send(node.serf, signal.SIGTERM)
    processes.stop([node.app for node in nodes if node.app], _APPS_S)
    processes.stop([node.serf for node in nodes if node.serf], _SERF_S)
    for node in nodes:
        node.serf = node.app = None
        node.state = LEFT
    record.is_up = False  # not before: another `down` has to find what a failed one has left
    record.save()


def clear(record: Record) -> None:
    """Remove all files of a lab."""
    for name in (*record.balancers, record.node_dirs):
        shutil.rmtree(os.path.join(record.lab_dir, name), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(tree.secret_path(record))
    records.forget(record.lab_dir)


def remove(record: Record) -> None:
    """Remove all files of a lab, and its directory unless it has other files in it."""
    clear(record)
    with contextlib.suppress(OSError):
        os.rmdir(record.lab_dir)


def enter(record: Record, node: Node, former: Node | None, wait_s: float) -> None:
    """Start a node that is new or replaces its former record; restore the record when that fails."""

    def undo(_: BaseException) -> None:
        web.crash(record, [node])
        if former:
            record.nodes[former.name] = former
        else:
            del record.nodes[node.name]
        record.save()

    plan.check_ports(record, [], [node])
    record.nodes[node.name] = node
    with undoing(undo):
        start(record, [], [node], wait_s, is_return=former is not None)


def abandon(record: Record, error: BaseException) -> None:
    """Stop all that `up` has started. Keep its logs when it failed, and no file when it was interrupted."""
    stop_all(record)
    if not isinstance(error, Exception):
        remove(record)


def _wait(
    record: Record, balancers: Collection[Balancer], nodes: Collection[Node], timeout_s: float, is_return: bool
) -> None:
    pairs = [
        (balancer, node)
        for balancer in record.running_balancers()
        for node in record.alive_nodes()
        if (balancer in balancers and not web.find_fault(record, node)) or node in nodes
    ]
    tend = _Tending(record, nodes, is_return).tend
    if pairs:
        watch.wait_served(record, pairs, timeout_s, tend)
    else:
        watch.wait_known(record, nodes, timeout_s, tend)


class _Tending:
    """Checks and helps new nodes while the caller waits until they are served."""

    def __init__(self, record: Record, nodes: Collection[Node], is_return: bool) -> None:
        self.record = record
        self.nodes = nodes
        self.is_return = is_return
        self._join_at_s = 0.0

    def tend(self) -> None:
        """Raise SystemFault for a process that has ended, except for the Serf agent of a node that returns.

        While the cluster still takes the node at its former address for alive, the new Serf agent ends after about
        3 s because of the name conflict. Then its join is ignored for another 30 s, for which memberlist remembers
        the dead. Serf itself repeats a join rarely; asking for it saves up to 10 s.
        """
        for node in self.nodes:
            fault = web.find_fault(self.record, node)
            if fault and not (self.is_return and processes.is_alive(node.app)):
                raise SystemFault(fault)
            if fault:
                web.start_serf(self.record, node)
                web.wait_serf(self.record, node)
            elif self.is_return and time.monotonic() > self._join_at_s:
                web.join(self.record, node)
                self._join_at_s = time.monotonic() + _JOIN_S
