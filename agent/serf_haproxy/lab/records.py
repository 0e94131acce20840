"""lab.json: what the lab consists of and which processes are its own; written after each change."""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab.ports import Ports, address_backend, number_ports
from serf_haproxy.lab.processes import Process
from serf_haproxy.system.files import read_text, write_durably

ALIVE, LEFT, CRASHED = "alive", "left", "crashed"
_FILE = "lab.json"
_LOCK_S = 180.0
_LOCK_POLL_S = 0.05


@dataclasses.dataclass
class Balancer:
    """One balancer; `svscan` is the root of its s6 tree, None while it is down."""

    name: str
    address: str
    svscan: Process | None = None


@dataclasses.dataclass
class Backend:
    """One backend.

    Attributes:
        name: Its node name.
        address: In 127.0.0.0/8.
        port: Where its application listens.
        tags: Its Serf tags.
        state: What was last done to it: `ALIVE` (it was started), `LEFT` or `CRASHED`.
        app: The application, None while it should not run.
        serf: The Serf agent, None while it should not run.
    """

    name: str
    address: str
    port: int
    tags: dict[str, str]
    state: str = ALIVE
    app: Process | None = None
    serf: Process | None = None


@dataclasses.dataclass
class Record:
    """One lab.

    Attributes:
        lab_dir: Everything is in here; an absolute path.
        port_base: The first of its ports.
        environ: What the caller of `up` chose for all processes: settings, Serf's profile and log level.
        address_count: Backend addresses that have been given out.
        is_up: False when only logs are left of it.
        balancers: By name.
        backends: By name.
    """

    lab_dir: str
    port_base: int
    environ: dict[str, str] = dataclasses.field(default_factory=dict)
    address_count: int = 0
    is_up: bool = True
    balancers: dict[str, Balancer] = dataclasses.field(default_factory=dict)
    backends: dict[str, Backend] = dataclasses.field(default_factory=dict)

    @property
    def ports(self) -> Ports:
        """The ports of everything."""
        return number_ports(self.port_base)

    def save(self) -> None:
        """Replace lab.json."""
        table = dataclasses.asdict(self)
        del table["lab_dir"]
        write_durably(os.path.join(self.lab_dir, _FILE), json.dumps(table, indent=1) + "\n", 0o600)

    def take_address(self) -> str:
        """Return a backend address that has not been used yet."""
        taken = {backend.address for backend in self.backends.values()}
        while True:
            self.address_count += 1
            address = address_backend(self.address_count)
            if address not in taken:
                return address

    def running_balancers(self) -> list[Balancer]:
        """Return the balancers that should be up."""
        return [balancer for balancer in self.balancers.values() if balancer.svscan]

    def alive_backends(self) -> list[Backend]:
        """Return the backends that should be alive."""
        return [backend for backend in self.backends.values() if backend.state == ALIVE]

    def find_backend(self, name: str) -> Backend:
        """Return a backend; raise InputError when there is none of that name."""
        if name not in self.backends:
            known = ", ".join(self.backends) or "none"
            raise InputError(f"there is no backend {name!a} in the lab at {self.lab_dir}; there are: {known}")
        return self.backends[name]


def load(lab_dir: str) -> Record | None:
    """Read lab.json; None when there is none.

    Raises:
        SystemFault: It is damaged.
    """
    path = os.path.join(lab_dir, _FILE)
    text = read_text(path)
    if text is None:
        return None
    try:
        table: dict[str, Any] = json.loads(text)
        balancers, backends = table.pop("balancers"), table.pop("backends")
        record = Record(lab_dir, **table)
        record.balancers = {name: Balancer(**_revive(entry)) for name, entry in balancers.items()}
        record.backends = {name: Backend(**_revive(entry)) for name, entry in backends.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SystemFault(f"{path} is damaged ({error}); stop its processes by hand and remove {lab_dir}") from error
    return record


def forget(lab_dir: str) -> None:
    """Remove lab.json."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(lab_dir, _FILE))


@contextlib.contextmanager
def locked(lab_dir: str) -> Iterator[None]:
    """Hold the lab's directory, which exists, for oneself.

    The lock is on the directory itself, so it leaves no file behind; whoever has waited for one that `down` has
    removed looks again.

    Raises:
        InputError: There is no such directory.
        SystemFault: It cannot be opened, or another command works on it for too long.
    """
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fd = os.open(lab_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise InputError(missing(lab_dir)) from error
            raise SystemFault(f"cannot open {lab_dir}: {error.strerror}") from error
        try:
            if _lock(fd, lab_dir, deadline):
                yield
                return
        finally:
            os.close(fd)


def missing(lab_dir: str) -> str:
    """Return the sentence for a lab that is not there."""
    return f"there is no lab at {lab_dir}; start one with: serf-haproxy lab up --dir {lab_dir}"


def _lock(fd: int, lab_dir: str, deadline: float) -> bool:
    """Lock an open directory; return False when another one, or none, has its name by then."""
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
    """Turn JSON's lists back into processes."""
    return {key: Process(*value) if isinstance(value, list) else value for key, value in entry.items()}
