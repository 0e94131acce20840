"""One backend: the web application and its Serf agent."""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from serf_haproxy.errors import SystemFault
from serf_haproxy.lab import ports, processes, programs
from serf_haproxy.lab.records import Backend, Balancer, Record
from serf_haproxy.system.processes import run

_POLL_S = 0.02
_START_S = 30.0  # an application or an agent that does not answer by then never will
_LEAVE_S = 15.0  # Serf takes 1.4 s
_FINISH_S = 35.0  # the application gives the requests in flight 30 s
_COMMAND_S = 10.0


def list_listeners(record: Record, backend: Backend) -> list[ports.Listener]:
    """Return what a backend will listen on."""
    return [
        ports.Listener(f"the application of {backend.name}", backend.address, backend.port),
        ports.Listener(f"Serf's gossip of {backend.name}", backend.address, record.ports.gossip, is_udp=True),
        ports.Listener(f"Serf's RPC of {backend.name}", backend.address, record.ports.backend_rpc),
    ]


def work_dir(record: Record, backend: Backend) -> str:
    """Return the directory of a backend: its logs and its agent's configuration."""
    return os.path.join(record.lab_dir, "backends", backend.name)


def log_path(record: Record, backend: Backend, what: str) -> str:
    """Return the log of "app" or "serf"."""
    return os.path.join(work_dir(record, backend), f"{what}.log")


def start_app(record: Record, backend: Backend) -> None:
    """Start the application; `wait_app` waits for it."""
    os.makedirs(work_dir(record, backend), exist_ok=True)
    environ = programs.base_environ(record.environ) | {
        "APP_HOST": backend.address,
        "APP_PORT": str(backend.port),
        "APP_TAG": backend.name,
    }
    with processes.hold_signals():
        backend.app = processes.start(
            [sys.executable, programs.WEBAPP],
            environ,
            work_dir(record, backend),
            log_path(record, backend, "app"),
        )
        record.save()


def wait_app(record: Record, backend: Backend) -> None:
    """Wait until the application accepts connections; raise SystemFault when it does not."""
    _wait_listening(record, backend, "app", backend.port)


def start_serf(record: Record, backend: Backend) -> None:
    """Start the Serf agent; `wait_serf` waits for it."""
    config_path = os.path.join(work_dir(record, backend), "agent.json")
    with open(config_path, "w", encoding="utf-8") as file:
        json.dump({"leave_on_terminate": True, "retry_interval": "1s"}, file)
    with processes.hold_signals():
        backend.serf = processes.start(
            [
                "serf",
                "agent",
                f"-config-file={config_path}",
                f"-node={backend.name}",
                f"-bind={backend.address}:{record.ports.gossip}",
                f"-rpc-addr={_rpc_addr(record, backend)}",
                f"-profile={record.environ.get('SERF_PROFILE') or 'lan'}",
                f"-log-level={record.environ.get('SERF_LOG_LEVEL') or 'info'}",
                *(f"-tag={key}={value}" for key, value in backend.tags.items()),
                *(f"-retry-join={address}" for address in list_entries(record, backend.name)),
            ],
            programs.base_environ(record.environ),
            work_dir(record, backend),
            log_path(record, backend, "serf"),
        )
        record.save()


def wait_serf(record: Record, backend: Backend) -> None:
    """Wait until the agent's RPC accepts connections; raise SystemFault when it does not."""
    _wait_listening(record, backend, "serf", record.ports.backend_rpc)


def list_entries(record: Record, name: str) -> list[str]:
    """Return the gossip addresses at which a node can enter the cluster: all that should run, but itself."""
    others: list[Backend | Balancer] = [*record.balancers.values(), *record.alive_backends()]
    return [f"{other.address}:{record.ports.gossip}" for other in others if other.name != name]


def join(record: Record, backend: Backend) -> None:
    """Have a running agent introduce itself to everybody once more; whether that succeeds shows elsewhere."""
    entries = list_entries(record, backend.name)
    if entries:
        run(["serf", "join", f"-rpc-addr={_rpc_addr(record, backend)}", *entries], _COMMAND_S)


def is_known(record: Record, backend: Backend) -> bool:
    """Tell whether every other live backend has a backend as alive at its address."""
    words = [backend.name, f"{backend.address}:{record.ports.gossip}", "alive"]
    for other in record.alive_backends():
        if other is not backend and not find_fault(record, other):
            members = run(["serf", "members", f"-rpc-addr={_rpc_addr(record, other)}"], _COMMAND_S).output
            if words not in [line.split()[:3] for line in members.splitlines()]:
                return False
    return True


def find_fault(record: Record, backend: Backend) -> str | None:
    """Say which process of a live backend has ended; None when both run."""
    for what, process in (("app", backend.app), ("serf", backend.serf)):
        if not processes.is_alive(process):
            path = log_path(record, backend, what)
            return f"{what} of {backend.name} has ended: {last_line(path)}; its log: {path}"
    return None


def leave(record: Record, backend: Backend) -> None:
    """Have the Serf agent leave the cluster."""
    if backend.serf:
        processes.stop([backend.serf], _LEAVE_S)
        backend.serf = None
        record.save()


def finish(record: Record, backend: Backend) -> None:
    """Have the application finish its requests and end."""
    if backend.app:
        processes.stop([backend.app], _FINISH_S)
        backend.app = None
        record.save()


def crash(record: Record, backends: Iterable[Backend]) -> None:
    """Kill agents and applications without a warning."""
    victims = list(backends)
    processes.kill([process for victim in victims for process in (victim.serf, victim.app) if process])
    for victim in victims:
        victim.serf = victim.app = None
    record.save()


def change_tags(record: Record, backend: Backend, tags: Mapping[str, str], deleted: Sequence[str]) -> None:
    """Change the Serf tags of a live backend.

    Raises:
        SystemFault: Serf refuses; the tags are as before.
    """
    words = [f"-set={key}={value}" for key, value in tags.items()] + [f"-delete={key}" for key in deleted]
    completed = run(["serf", "tags", f"-rpc-addr={_rpc_addr(record, backend)}", *words], _COMMAND_S)
    if completed.status:
        raise SystemFault(f"serf tags for {backend.name} failed: {' '.join(completed.output.split())}")
    kept = {key: value for key, value in backend.tags.items() if key not in deleted}
    backend.tags = kept | dict(tags)
    record.save()


def last_line(path: str) -> str:
    """Return the last line of a log that has something to say."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            lines = [line.strip() for line in file if re.search(r"\w", line)]
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def _wait_listening(record: Record, backend: Backend, what: str, port: int) -> None:
    process = backend.app if what == "app" else backend.serf
    path = log_path(record, backend, what)
    deadline = time.monotonic() + _START_S
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((backend.address, port)) == 0:
                return
        if not processes.is_alive(process):
            raise SystemFault(f"{what} of {backend.name} has ended: {last_line(path)}; its log: {path}")
        if time.monotonic() > deadline:
            raise SystemFault(f"{what} of {backend.name} does not listen after {_START_S:g} s; its log: {path}")
        time.sleep(_POLL_S)


def _rpc_addr(record: Record, backend: Backend) -> str:
    return f"{backend.address}:{record.ports.backend_rpc}"
