"""One balancer: an s6 tree with HAProxy, the daemon and a Serf agent, the same tree as in the image."""

import contextlib
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Collection

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.lab import ports, processes, programs, services
from serf_haproxy.lab.node import last_line, list_entries
from serf_haproxy.lab.records import Balancer, Record
from serf_haproxy.services import Key, find_service
from serf_haproxy.settings import SOCKET_BYTES
from serf_haproxy.system.files import write_durably
from serf_haproxy.system.processes import run

SERVICES = ("haproxy", "daemon", "serf")  # the directories in s6/ of what a balancer needs
_OTHERS = ("autoscale",)
DAEMON = SERVICES[1]  # the service that runs `serf-haproxy run`
_CERTIFICATE_DIRS = ("certificates", "copies")  # the user's, and the daemon's
_SIGNS_BY = "SERF_HAPROXY_ORDERS_SECRET_FILE"
_SECRET_BYTES = 32
_STOP_S = 30.0  # more than the sum of the time limits within the tree
_ORPHANS_S = 15.0
_COMMAND_S = 10.0


def list_listeners(record: Record, balancer: Balancer) -> list[ports.Listener]:
    """Return the addresses and ports on which a balancer will listen."""
    name, address, numbers = balancer.name, balancer.address, record.ports
    return [
        ports.Listener(f"the frontend of {name}", address, numbers.frontend),
        ports.Listener(f"the statistics of {name}", address, numbers.stats),
        ports.Listener(f"Serf's RPC of {name}", address, numbers.balancer_rpc),
        ports.Listener(f"Serf's gossip of {name}", address, numbers.gossip, is_udp=True),
        *([ports.Listener(f"HTTPS of {name}", address, numbers.https)] if record.has_https else []),
        *(
            ports.Listener(f"service {service.name} of {name}", address, service.port)
            for service in record.services.values()
            if service.port
        ),
    ]


def work_dir(record: Record, balancer: Balancer) -> str:
    """Return the directory of a balancer."""
    return os.path.join(record.lab_dir, balancer.name)


def secret_path(record: Record) -> str:
    """Return the file with the secret that signs orders between the balancers."""
    return os.path.join(record.lab_dir, "orders.secret")


def log_dir(record: Record, balancer: Balancer) -> str:
    """Return the directory of a balancer's logs."""
    return os.path.join(work_dir(record, balancer), "log")


def scan_dir(record: Record, balancer: Balancer) -> str:
    """Return the s6 scan directory of a balancer."""
    return os.path.join(work_dir(record, balancer), "service")


def make_settings_environ(record: Record, balancer: Balancer) -> dict[str, str]:
    """Return the settings of a balancer: those that the user chose, and the paths and addresses that the lab sets."""
    home, numbers = work_dir(record, balancer), record.ports
    chosen = {name: value for name, value in record.environ.items() if name.startswith("SERF_HAPROXY_")}
    return (
        {_SIGNS_BY: secret_path(record)}
        | chosen
        | {
            "SERF_HAPROXY_SETTINGS_FILE": chosen.get("SERF_HAPROXY_SETTINGS_FILE", "") or os.devnull,
            services.FILE_VARIABLE: f"{home}/services.toml",
            "SERF_HAPROXY_NODES_DIR": f"{home}/nodes",
            "SERF_HAPROXY_WAKE_FIFO": f"{home}/wake",
            "SERF_HAPROXY_STATE_DIR": f"{home}/state",
            "SERF_HAPROXY_CERTIFICATE_COPIES_DIR": f"{home}/copies",
            "SERF_HAPROXY_CONFIG_PATH": f"{home}/haproxy.cfg",
            "SERF_HAPROXY_MASTER_SOCKET": f"{home}/master.sock",
            "SERF_HAPROXY_RUNTIME_SOCKET": f"{home}/admin.sock",
            "SERF_HAPROXY_SERVICE_DIR": f"{scan_dir(record, balancer)}/haproxy",
            "SERF_HAPROXY_RPC_ADDR": f"{balancer.address}:{numbers.balancer_rpc}",
            "SERF_HAPROXY_RPC_AUTH_FILE": f"{scan_dir(record, balancer)}/{DAEMON}/rpc-auth",  # daemon/run writes it
            "SERF_HAPROXY_FRONTEND_BIND": f"{balancer.address}:{numbers.frontend}",
            "SERF_HAPROXY_STATS_BIND": f"{balancer.address}:{numbers.stats}",
            "SERF_HAPROXY_BALANCER_NAME": balancer.name,
        }
        | (_make_https_environ(home, balancer, numbers) if record.has_https else {})
    )


def _make_https_environ(home: str, balancer: Balancer, numbers: ports.Ports) -> dict[str, str]:
    return {
        "SERF_HAPROXY_HTTPS_BIND": f"{balancer.address}:{numbers.https}",
        "SERF_HAPROXY_HTTPS_PORT": str(numbers.https),
        "SERF_HAPROXY_CERTIFICATES_DIR": f"{home}/certificates",
    }


def list_servers(record: Record, balancer: Balancer) -> dict[Key, ServerStatus] | None:
    """Return the servers of a balancer's HAProxy by service and name; None when it does not answer."""
    environ = make_settings_environ(record, balancer)
    runtime = Runtime(environ["SERF_HAPROXY_RUNTIME_SOCKET"], environ["SERF_HAPROXY_MASTER_SOCKET"])
    status = runtime.read_status()
    if status is None:
        return None
    # A template of the user may name the section of the default service as it likes.
    names = record.services.keys()
    return {(find_service(section, names), name): row for (section, name), row in status.items()}


def check_paths(lab_dir: str) -> None:
    """Check that HAProxy can use the paths in a lab's directory.

    Raises:
        InputError: The directory has blanks in its path, or its path is too long; the message says which.
    """
    if any(ord(character) < 0x21 for character in lab_dir):
        raise InputError(f"--dir {lab_dir!a}: must be a path without blanks")
    length = len(os.fsencode(f"{lab_dir}/lb1/master.sock.next"))
    if length > SOCKET_BYTES:
        excess = f"{length - SOCKET_BYTES} bytes too long for the sockets of HAProxy in it"
        raise InputError(f"--dir {lab_dir}: is {excess}; choose a shorter path, for example below /tmp")


def start(record: Record, balancer: Balancer) -> None:
    """Start the tree without waiting for it; see `is_ready`. Files of an earlier run are kept."""
    home, scan = work_dir(record, balancer), scan_dir(record, balancer)
    for name in ("nodes", "state", "log"):
        os.makedirs(os.path.join(home, name), exist_ok=True)
    if record.has_https:  # a private key is for the user alone, and so are the copies that the daemon makes
        for name in _CERTIFICATE_DIRS:
            os.makedirs(os.path.join(home, name), mode=0o700, exist_ok=True)
    if not os.path.isdir(os.path.join(scan, DAEMON)):  # a tree of another release has other services
        shutil.rmtree(scan, ignore_errors=True)
        ignored = shutil.ignore_patterns("supervise", "event", "lock", "control", "rpc-key.random*")
        shutil.copytree(programs.S6_DIR, scan, symlinks=True, ignore=ignored)
    for service in SERVICES:
        with contextlib.suppress(FileNotFoundError):  # the status of an earlier run would be taken for today's
            os.unlink(os.path.join(scan, service, "supervise", "status"))
    if not os.path.exists(secret_path(record)):
        write_durably(secret_path(record), f"{secrets.token_hex(_SECRET_BYTES)}\n", 0o600)
    services_path = os.path.join(home, "services.toml")
    if record.services and not os.path.exists(services_path):  # changes of the user stay
        write_durably(services_path, services.write_file(record, balancer))
    numbers = record.ports
    environ = programs.base_environ(record.environ) | make_settings_environ(record, balancer)
    environ |= {
        "SERF_NODE": balancer.name,
        "SERF_BIND": f"{balancer.address}:{numbers.gossip}",
        "SERF_RPC_ADDR": f"{balancer.address}:{numbers.balancer_rpc}",
        "SERF_JOIN": " ".join(list_entries(record, balancer.name)),
        "SERF_TAGS": "role=balancer",
        "SERF_SNAPSHOT": f"{home}/state/serf.snapshot",
        "SERF_HANDLER": shlex.quote(programs.HANDLER),  # Serf runs it in a shell
        "SERF_ORDER_HANDLER": shlex.quote(programs.ORDER_HANDLER),
        "SERF_PROFILE": record.environ.get("SERF_PROFILE") or "lan",
        "LOG_DIR": log_dir(record, balancer),
    }
    with processes.hold_signals():
        svscan_log = os.path.join(log_dir(record, balancer), "svscan.log")
        balancer.svscan = processes.start(["s6-svscan", scan], environ, home, svscan_log)
        record.save()


def is_ready(record: Record, balancer: Balancer) -> bool:
    """Return whether all services of a balancer are up and ready.

    Raises:
        SystemFault: The tree has ended, or a service is down and s6 does not restart it.
    """
    logs = log_dir(record, balancer)
    if not processes.is_alive(balancer.svscan):
        raise SystemFault(f"the s6-svscan of {balancer.name} has ended; its logs: {logs}")
    ready = True
    for service in SERVICES:
        words = _ask_s6(record, balancer, service, "up,wantedup,ready")
        if words[:2] == ["false", "false"]:
            log = os.path.join(logs, service, "current")
            reason = f"{service} of {balancer.name} has stopped for good: {last_line(log)}; its log: {log}"
            raise SystemFault(reason)
        ready = ready and words == ["true", "true", "true"]
    return ready


def runs_haproxy(record: Record, balancer: Balancer) -> bool:
    """Return whether a balancer's HAProxy runs, ready or not."""
    return processes.is_alive(balancer.svscan) and _ask_s6(record, balancer, "haproxy", "up") == ["true"]


def stop(record: Record, balancers: Collection[Balancer]) -> None:
    """Stop the trees side by side: gracefully first, with SIGKILL after a time limit.

    Raises:
        SystemFault: A process survives.
    """
    processes.stop([balancer.svscan for balancer in balancers if balancer.svscan], _STOP_S)
    for balancer in balancers:
        _stop_orphans(scan_dir(record, balancer))
        # A service whose supervisor was killed has a session of its own and no ancestor in the tree. Its LOG_DIR
        # identifies it: `lab env` does not export that variable, so no user's process has it.
        processes.kill(processes.find_marked("LOG_DIR", log_dir(record, balancer)))
        balancer.svscan = None
    record.save()


def _ask_s6(record: Record, balancer: Balancer, service: str, fields: str) -> list[str]:
    """Return fields that s6-svstat prints for a service; none of them is valid while it has no supervisor."""
    service_dir = os.path.join(scan_dir(record, balancer), service)
    return run(["s6-svstat", "-o", fields, service_dir], _COMMAND_S).output.split()


def _stop_orphans(scan: str) -> None:
    """Stop supervisors that have outlived their s6-svscan; their service directories identify them."""
    services = [os.path.join(scan, service) for service in (*SERVICES, *_OTHERS)]
    for service_dir in [*services, *(os.path.join(service, "log") for service in services)]:
        if not os.path.isdir(service_dir):
            continue
        deadline = time.monotonic() + _ORPHANS_S
        flags = "-xd"
        while run(["s6-svok", service_dir], _COMMAND_S).status == 0:
            run(["s6-svc", flags, service_dir], _COMMAND_S)
            if time.monotonic() > deadline:
                raise SystemFault(f"{service_dir} still has a supervisor; stop it by hand")
            time.sleep(0.1)
