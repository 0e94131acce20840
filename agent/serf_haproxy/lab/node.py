"""One node: an application and its Serf agent."""

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from serf_haproxy.errors import SerfFault, SystemFault
from serf_haproxy.lab import ports, processes, programs, serf_agent
from serf_haproxy.lab.records import Balancer, Node, Record
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.rpc import Connection
from serf_haproxy.services import DEFAULT_SERVICE

_POLL_S = 0.02
_START_S = 30.0  # far more than an application or a Serf agent needs to listen
_LEAVE_S = 15.0  # Serf takes 1.4 s
_FINISH_S = 35.0  # the application gives the requests in flight 30 s
_TITLES = {"app": "the application", "serf": "the Serf agent"}


def list_listeners(record: Record, node: Node) -> list[ports.Listener]:
    """Return the addresses and ports on which a node will listen."""
    return [
        ports.Listener(f"the application of {node.name}", node.address, node.port),
        ports.Listener(f"Serf's gossip of {node.name}", node.address, record.ports.gossip, is_udp=True),
        ports.Listener(f"Serf's RPC of {node.name}", node.address, record.ports.node_rpc),
    ]


def work_dir(record: Record, node: Node) -> str:
    """Return the directory of a node, with its logs and the configuration of its Serf agent."""
    return os.path.join(record.lab_dir, record.node_dirs, node.name)


def log_path(record: Record, node: Node, what: str) -> str:
    """Return the path of a log; `what` is "app" or "serf"."""
    return os.path.join(work_dir(record, node), f"{what}.log")


def start_app(record: Record, node: Node) -> None:
    """Start the application; `wait_app` waits until it listens."""
    os.makedirs(work_dir(record, node), exist_ok=True)
    environ = programs.base_environ(record.environ) | {
        "APP_HOST": node.address,
        "APP_PORT": str(node.port),
        "APP_TAG": node.name,
    }
    if node.service != DEFAULT_SERVICE:
        environ["APP_PATH"] = f"/{node.service}"  # where the balancers' routes lead
    program = ["-m", "serf_haproxy.lab.echo"] if record.is_tcp(node.service) else [programs.WEBAPP]
    with processes.hold_signals():
        node.app = processes.start(
            [sys.executable, *program],
            environ,
            work_dir(record, node),
            log_path(record, node, "app"),
        )
        record.save()


def wait_app(record: Record, node: Node) -> None:
    """Wait until the application accepts connections; raise SystemFault if it does not."""
    _wait_listening(record, node, "app", node.port)


def start_serf(record: Record, node: Node) -> None:
    """Start the Serf agent; `wait_serf` waits until it listens."""
    config_path = serf_agent.write_config(work_dir(record, node), {"leave_on_terminate": True, "retry_interval": "1s"})
    with processes.hold_signals():
        node.serf = processes.start(
            [
                "serf",
                "agent",
                f"-config-file={config_path}",
                f"-node={node.name}",
                f"-bind={node.address}:{record.ports.gossip}",
                f"-rpc-addr={rpc_addr(record, node)}",
                f"-profile={record.environ.get('SERF_PROFILE') or 'lan'}",
                f"-log-level={record.environ.get('SERF_LOG_LEVEL') or 'info'}",
                *(f"-tag={key}={value}" for key, value in node.tags.items()),
                *(f"-retry-join={address}" for address in list_entries(record, node.name)),
            ],
            programs.base_environ(record.environ),
            work_dir(record, node),
            log_path(record, node, "serf"),
        )
        record.save()


def wait_serf(record: Record, node: Node) -> None:
    """Wait until the RPC of the Serf agent accepts connections; raise SystemFault if it does not."""
    _wait_listening(record, node, "serf", record.ports.node_rpc)


def list_entries(record: Record, name: str) -> list[str]:
    """Return the gossip addresses through which a node can join: those of all others that should run."""
    others: list[Node | Balancer] = [*record.balancers.values(), *record.alive_nodes()]
    return [f"{other.address}:{record.ports.gossip}" for other in others if other.name != name]


def join(record: Record, node: Node) -> None:
    """Have a running Serf agent join all others once more. A failure is not reported: the caller checks the result."""
    entries = list_entries(record, node.name)
    if entries:
        with contextlib.suppress(SerfFault), _ask(record, node) as connection:
            connection.join(entries)


def is_known(record: Record, node: Node) -> bool:
    """Return whether all other live nodes list a node as alive at its address."""
    for other in record.alive_nodes():
        if other is not node and not find_fault(record, other):
            try:
                with _ask(record, other) as connection:
                    members = connection.read_roster().members
            except SerfFault:
                return False
            status, member = members.get(node.name, ("", None))
            if status != ALIVE or member is None or member.address != node.address:
                return False
    return True


def find_fault(record: Record, node: Node) -> str | None:
    """Return which process of a live node has ended, and why; None when both run."""
    for what, process in (("app", node.app), ("serf", node.serf)):
        if not processes.is_alive(process):
            return _describe_end(record, node, what)
    return None


def leave(record: Record, node: Node) -> None:
    """Have the Serf agent leave the cluster and end."""
    if node.serf:
        processes.stop([node.serf], _LEAVE_S)
        node.serf = None
        record.save()


def finish(record: Record, node: Node) -> None:
    """Have the application finish its requests and end."""
    if node.app:
        processes.stop([node.app], _FINISH_S)
        node.app = None
        record.save()


def crash(record: Record, nodes: Iterable[Node]) -> None:
    """Kill Serf agents and applications with SIGKILL."""
    victims = list(nodes)
    processes.kill([process for victim in victims for process in (victim.serf, victim.app) if process])
    for victim in victims:
        victim.serf = victim.app = None
    record.save()


def change_tags(record: Record, node: Node, tags: Mapping[str, str], deleted: Sequence[str]) -> None:
    """Change the Serf tags of a live node.

    Raises:
        SystemFault: Serf refuses the change; the tags stay as they were.
    """
    try:
        with _ask(record, node) as connection:
            connection.change_tags(tags, deleted)
    except SerfFault as error:
        raise SystemFault(f"the tags of {node.name} are not changed: {error}") from error
    kept = {key: value for key, value in node.tags.items() if key not in deleted}
    node.tags = kept | dict(tags)
    record.save()


def last_line(path: str) -> str:
    """Return the last line of a log that has a word in it."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            lines = [line.strip() for line in file if re.search(r"\w", line)]
    except OSError:
        lines = []
    return lines[-1] if lines else "its log is empty"


def _describe_end(record: Record, node: Node, what: str) -> str:
    path = log_path(record, node, what)
    return f"{_TITLES[what]} of {node.name} has ended: {last_line(path)}; its log: {path}"


def _wait_listening(record: Record, node: Node, what: str, port: int) -> None:
    process = node.app if what == "app" else node.serf
    deadline = time.monotonic() + _START_S
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((node.address, port)) == 0:
                return
        if not processes.is_alive(process):
            raise SystemFault(_describe_end(record, node, what))
        if time.monotonic() > deadline:
            path = log_path(record, node, what)
            raise SystemFault(f"{_TITLES[what]} of {node.name} does not listen after {_START_S:g} s; its log: {path}")
        time.sleep(_POLL_S)


def rpc_addr(record: Record, node: Node) -> str:
    """Return the address of the RPC of a node's Serf agent."""
    return f"{node.address}:{record.ports.node_rpc}"


def _ask(record: Record, node: Node) -> contextlib.AbstractContextManager[Connection]:
    return serf_agent.connect(work_dir(record, node), node.address, record.ports.node_rpc)
