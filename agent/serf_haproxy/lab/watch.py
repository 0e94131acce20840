"""The nodes as clients and HAProxy see them, and functions that wait for a change."""

import socket
import time
from collections.abc import Callable, Collection

from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.lab.balancer import is_ready, list_servers, log_dir, runs_haproxy
from serf_haproxy.lab.node import is_known, work_dir
from serf_haproxy.lab.records import Balancer, Node, Record
from serf_haproxy.lab.services import locate, may_get_no_request, offers_another

_POLL_S = 0.05
_FETCH_S = 2.0
_GREETING_BYTES = 1024
# With these algorithms a client that repeats a request reaches all servers; with the others always the same one.
_SPREADING = ("", "roundrobin", "leastconn", "random", "static-rr")

Pair = tuple[Balancer, Node]


def wait_ready(record: Record, balancers: Collection[Balancer], timeout_s: float) -> None:
    """Wait until all services of the balancers are ready; raise SystemFault when the time is over."""
    deadline = time.monotonic() + timeout_s
    waiting = list(balancers)
    while waiting := [balancer for balancer in waiting if not is_ready(record, balancer)]:
        if time.monotonic() > deadline:
            names = ", ".join(balancer.name for balancer in waiting)
            logs = ", ".join(log_dir(record, balancer) for balancer in waiting)
            raise SystemFault(f"{names} not ready after {timeout_s:.0f} s; logs: {logs}")
        time.sleep(_POLL_S)


def wait_served(record: Record, pairs: Collection[Pair], timeout_s: float, tend: Callable[[], None]) -> None:
    """Wait until the node of each pair has answered through its balancer.

    Args:
        record: The lab.
        pairs: Balancers and nodes.
        timeout_s: The longest time to wait.
        tend: Called after each unsuccessful attempt; it raises SystemFault when waiting is pointless.

    Raises:
        SystemFault: A node has not answered in time, or `tend` raises it.
    """
    deadline = time.monotonic() + timeout_s
    missing = list(pairs)
    while missing:
        for balancer in {balancer.name: balancer for balancer, _ in missing}.values():
            wanted = [node for other, node in missing if other is balancer]
            served = _find_served(record, balancer, wanted)
            missing = [pair for pair in missing if pair[0] is not balancer or pair[1].name not in served]
        if missing and time.monotonic() > deadline:
            raise SystemFault(_describe(record, missing, timeout_s))
        if missing:
            tend()
            time.sleep(_POLL_S)


def wait_known(record: Record, nodes: Collection[Node], timeout_s: float, tend: Callable[[], None]) -> None:
    """Wait until all other nodes list these as alive: the check for a lab without a balancer.

    Raises:
        SystemFault: A node is not listed in time, or `tend` raises it.
    """
    deadline = time.monotonic() + timeout_s
    unknown = list(nodes)
    while unknown := [node for node in unknown if not is_known(record, node)]:
        if time.monotonic() > deadline:
            names = ", ".join(node.name for node in unknown)
            logs = ", ".join(work_dir(record, node) for node in unknown)
            raise SystemFault(f"{names} not known to all others after {timeout_s:.0f} s; logs: {logs}")
        tend()
        time.sleep(_POLL_S)


def wait_dropped(record: Record, balancers: Collection[Balancer], node: Node, timeout_s: float) -> None:
    """Wait until no HAProxy sends new requests to a node that another one can answer.

    Raises:
        SystemFault: The time is over.
    """
    deadline = time.monotonic() + timeout_s
    having = list(balancers)
    while having := [balancer for balancer in having if _has(record, balancer, node)]:
        if time.monotonic() > deadline:
            names = ", ".join(balancer.name for balancer in having)
            logs = ", ".join(log_dir(record, balancer) for balancer in having)
            raise SystemFault(f"{names} has not dropped {node.name} after {timeout_s:.0f} s; logs: {logs}")
        time.sleep(_POLL_S)


def _find_served(record: Record, balancer: Balancer, wanted: Collection[Node]) -> set[str]:
    """Return the names of the wanted nodes that are served; make enough requests to reach each node."""
    served = set()
    moved = [node for node in wanted if offers_another(node)]
    for service in {node.service for node in wanted if node not in moved}:
        fetch = greet if record.is_tcp(service) else _fetch
        count = sum(node.service == service for node in record.nodes.values())
        addresses = {fetch(locate(record, balancer, service)) for _ in range(2 * count)}
        served |= {node.name for node in wanted if node.service == service and node.address in addresses}
    hidden = [node for node in wanted if _is_hidden(record, node)]
    if hidden or moved:
        views = list_servers(record, balancer) or {}
        served |= {node.name for node in hidden if _is_in_use(views.get((node.service, node.name)), node)}
        # A user moved these to another service, which the lab may not know.
        names = {node.name: node for node in moved}
        served |= {name for (_, name), view in views.items() if name in names and _is_in_use(view, names[name])}
    return served


def _is_hidden(record: Record, node: Node) -> bool:
    """Return whether requests may never reach a node that is served, so that HAProxy has to be asked."""
    balance = record.environ.get("SERF_HAPROXY_BALANCE", "")
    return balance not in _SPREADING or may_get_no_request(node)


def _fetch(url: str) -> str | None:
    """Return the address that answers a new connection, or None; the path has no configurable delay."""
    import requests  # as in `behaviour`

    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the environment cannot reach loopback
            answer = session.get(f"{url}/health", headers={"Connection": "close"}, timeout=_FETCH_S)
    except requests.RequestException:
        return None
    return answer.headers.get("X-Backend-IP") if answer.ok else None


def greet(endpoint: str) -> str | None:
    """Return the address in the greeting of a TCP application, or None."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _FETCH_S) as connection:
            words = connection.recv(_GREETING_BYTES).decode("utf-8", "replace").split()
    except OSError:
        return None
    return words[-1] if words else None


def _is_in_use(view: ServerStatus | None, node: Node) -> bool:
    endpoint = f"{node.address}:{node.port}"
    return view is not None and view.address == endpoint and view.status in ("UP", "DRAIN")


def _has(record: Record, balancer: Balancer, node: Node) -> bool:
    views = list_servers(record, balancer)
    if views is None:
        return runs_haproxy(record, balancer)  # it may still send requests there
    view = views.get((node.service, node.name))
    # A balancer keeps the last server of a service that is up until it is gone.
    others = [row for (service, name), row in views.items() if service == node.service and name != node.name]
    is_last = not any(other.status == "UP" for other in others)
    return view is not None and not view.status.startswith("MAINT") and not is_last


def _describe(record: Record, missing: Collection[Pair], timeout_s: float) -> str:
    pairs = ", ".join(
        f"{node.name} through {balancer.name} ({locate(record, balancer, node.service)})" for balancer, node in missing
    )
    dirs = [log_dir(record, balancer) for balancer, _ in missing]
    dirs += [work_dir(record, node) for _, node in missing]
    return f"not served after {timeout_s:.0f} s: {pairs}; logs: {', '.join(dict.fromkeys(dirs))}"
