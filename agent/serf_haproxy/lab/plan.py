"""What a lab will consist of, and whether there is room for it."""

import os
from collections.abc import Collection, Iterable, Mapping

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab import backend as web
from serf_haproxy.lab import balancer as tree
from serf_haproxy.lab import ports, programs, records
from serf_haproxy.lab.records import Backend, Balancer, Record
from serf_haproxy.serf.events import name_fault


def check_vacant(lab_dir: str) -> None:
    """See that a lab can be built in a directory: it is absent, empty, or holds what a lab that is down left.

    Raises:
        InputError: It cannot.
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
        raise SystemFault(f"--dir {lab_dir}: {error.strerror}; choose another") from error
    if content and record is None:
        raise InputError(f"--dir {lab_dir}: is not empty and holds no lab; choose another or empty it")


def check_ports(record: Record, balancers: Collection[Balancer], backends: Collection[Backend]) -> None:
    """See that nobody listens yet where these will."""
    listeners = [listener for balancer in balancers for listener in tree.list_listeners(record, balancer)]
    listeners += [listener for backend in backends for listener in web.list_listeners(record, backend)]
    ports.check_free(listeners)


def plan_lab(lab_dir: str, port_base: int | None, backend_count: int, balancer_count: int) -> Record:
    """Return a lab of which nothing runs yet.

    Raises:
        InputError: A number is out of range.
    """
    if backend_count < 0 or not 0 <= balancer_count <= ports.BALANCER_COUNT:
        allowed = f"backends must be 0 or more, balancers 0 to {ports.BALANCER_COUNT}"
        raise InputError(f"{backend_count} backends, {balancer_count} balancers: {allowed}")
    base = ports.BASE if port_base is None else port_base
    ports.number_ports(base)
    record = Record(lab_dir, base, programs.choose_environ(os.environ))
    for number in range(1, balancer_count + 1):
        name = f"lb{number}"
        record.balancers[name] = Balancer(name, ports.address_balancer(name))
    for number in range(1, backend_count + 1):
        name = f"web{number}"
        record.backends[name] = plan_backend(record, name, None, None, {})
    return record


def plan_backend(record: Record, name: str, address: str | None, port: int | None, tags: Mapping[str, str]) -> Backend:
    """Return a backend that is not in the lab yet: on a fresh address and the lab's port, unless given."""
    port = record.ports.app if port is None else port
    return Backend(name, choose_address(record, address), port, {"role": "web", "port": str(port)} | dict(tags))


def check_name(name: str) -> None:
    """Raise InputError for a name that a backend cannot have."""
    fault = name_fault(name)
    if fault or ports.is_balancer(name):
        raise InputError(f"backend {name!a}: {fault or 'that is the name of a balancer; choose another'}")


def read_tags(pairs: Iterable[str]) -> dict[str, str]:
    """Read `key=value` words.

    Raises:
        InputError: One has no key or no equals sign.
    """
    tags = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not key or not sign:
            raise InputError(f"tag {pair!a}: must be KEY=VALUE")
        tags[key] = value
    return tags


def choose_address(record: Record, address: str | None) -> str:
    """Return an address that was given, or a fresh one."""
    return record.take_address() if address is None else ports.read_address(address)
