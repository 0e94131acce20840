"""What can be seen through the balancers: which backends answer, and which HAProxy still has."""

import time
from collections.abc import Callable, Collection

import requests

from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy.runtime import ServerView, read_servers
from serf_haproxy.lab.backend import is_known, work_dir
from serf_haproxy.lab.balancer import is_ready, log_dir, runs_haproxy, sockets
from serf_haproxy.lab.records import Backend, Balancer, Record

_POLL_S = 0.05
_FETCH_S = 2.0
# With these a client that only asks again meets every server; with the others it always meets the same one.
_SPREADING = ("", "roundrobin", "leastconn", "random", "static-rr")

Pair = tuple[Balancer, Backend]


def frontend_url(record: Record, balancer: Balancer) -> str:
    """Return where clients connect."""
    return f"http://{balancer.address}:{record.ports.frontend}"


def wait_ready(record: Record, balancers: Collection[Balancer], timeout_s: float) -> None:
    """Wait until all services of the balancers are ready; raise SystemFault when they are not in time."""
    deadline = time.monotonic() + timeout_s
    waiting = list(balancers)
    while waiting := [balancer for balancer in waiting if not is_ready(record, balancer)]:
        if time.monotonic() > deadline:
            names = ", ".join(balancer.name for balancer in waiting)
            logs = ", ".join(log_dir(record, balancer) for balancer in waiting)
            raise SystemFault(f"{names} not ready after {timeout_s:.0f} s; logs: {logs}")
        time.sleep(_POLL_S)


def wait_served(record: Record, pairs: Collection[Pair], timeout_s: float, tend: Callable[[], None]) -> None:
    """Wait until the backend of each pair has answered through its balancer.

    Args:
        record: The lab.
        pairs: What to wait for.
        timeout_s: How long.
        tend: Called between two looks; it raises a SystemFault when waiting has become useless.

    Raises:
        SystemFault: One has not answered in time, or `tend` raises it.
    """
    deadline = time.monotonic() + timeout_s
    missing = list(pairs)
    while missing:
        for balancer in {balancer.name: balancer for balancer, _ in missing}.values():
            wanted = [backend for other, backend in missing if other is balancer]
            served = _find_served(record, balancer, wanted)
            missing = [pair for pair in missing if pair[0] is not balancer or pair[1].name not in served]
        if missing and time.monotonic() > deadline:
            raise SystemFault(_describe(record, missing, timeout_s))
        if missing:
            tend()
            time.sleep(_POLL_S)


def wait_known(record: Record, backends: Collection[Backend], timeout_s: float, tend: Callable[[], None]) -> None:
    """Wait until all other backends know each of these, for a lab without a balancer.

    Raises:
        SystemFault: Somebody does not in time, or `tend` raises it.
    """
    deadline = time.monotonic() + timeout_s
    unknown = list(backends)
    while unknown := [backend for backend in unknown if not is_known(record, backend)]:
        if time.monotonic() > deadline:
            names = ", ".join(backend.name for backend in unknown)
            logs = ", ".join(work_dir(record, backend) for backend in unknown)
            raise SystemFault(f"{names} not known to all others after {timeout_s:.0f} s; logs: {logs}")
        tend()
        time.sleep(_POLL_S)


def wait_dropped(record: Record, balancers: Collection[Balancer], backend: Backend, timeout_s: float) -> None:
    """Wait until no HAProxy sends anything new to a backend; raise SystemFault when one still does."""
    deadline = time.monotonic() + timeout_s
    having = list(balancers)
    while having := [balancer for balancer in having if _has(record, balancer, backend)]:
        if time.monotonic() > deadline:
            names = ", ".join(balancer.name for balancer in having)
            logs = ", ".join(log_dir(record, balancer) for balancer in having)
            raise SystemFault(f"{names} has not dropped {backend.name} after {timeout_s:.0f} s; logs: {logs}")
        time.sleep(_POLL_S)


def _find_served(record: Record, balancer: Balancer, wanted: Collection[Backend]) -> set[str]:
    """Return the names of the wanted backends that are served; ask often enough to meet each once."""
    addresses = {_fetch(frontend_url(record, balancer)) for _ in range(2 * len(record.backends))}
    served = {backend.name for backend in wanted if backend.address in addresses}
    hidden = [backend for backend in wanted if _is_hidden(record, backend)]
    if hidden:
        views = read_servers(sockets(record, balancer)) or {}
        served |= {backend.name for backend in hidden if _is_in_use(views.get(backend.name), backend)}
    return served


def _is_hidden(record: Record, backend: Backend) -> bool:
    """Tell whether HAProxy may rightly never send us to a backend, so that only its own word counts."""
    balance = record.environ.get("SERF_HAPROXY_BALANCE", "")
    return balance not in _SPREADING or backend.tags.get("weight") == "0"


def _fetch(url: str) -> str | None:
    """Return who answers a new connection, None when nobody does; the path is one that is never slow."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy between us
            answer = session.get(f"{url}/health", headers={"Connection": "close"}, timeout=_FETCH_S)
    except requests.RequestException:
        return None
    return answer.headers.get("X-Backend-IP") if answer.ok else None


def _is_in_use(view: ServerView | None, backend: Backend) -> bool:
    endpoint = f"{backend.address}:{backend.port}"
    return view is not None and view.address == endpoint and view.status in ("UP", "DRAIN")


def _has(record: Record, balancer: Balancer, backend: Backend) -> bool:
    views = read_servers(sockets(record, balancer))
    if views is None:
        return runs_haproxy(record, balancer)  # if it does, nobody knows
    view = views.get(backend.name)
    return view is not None and not view.status.startswith("MAINT")


def _describe(record: Record, missing: Collection[Pair], timeout_s: float) -> str:
    pairs = ", ".join(
        f"{backend.name} through {balancer.name} ({frontend_url(record, balancer)})" for balancer, backend in missing
    )
    dirs = [log_dir(record, balancer) for balancer, _ in missing]
    dirs += [work_dir(record, backend) for _, backend in missing]
    return f"not served after {timeout_s:.0f} s: {pairs}; logs: {', '.join(dict.fromkeys(dirs))}"
