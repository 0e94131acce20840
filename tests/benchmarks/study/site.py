"""A balancer or two and their servers: real HAProxies, real daemons, and the study's applications as processes."""

import contextlib
import csv
import io
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from balancer import Daemon, running_daemon
from membership import Member, Membership, serving

from integration.proxy import Proxy, free_port, running_proxy, wait_for
from serf_haproxy.haproxy.socket import ask
from study import application

_FRONT_S = 5.0


class Endpoint(NamedTuple):
    """Where a server listens."""

    address: str
    port: int


class Site:
    """The running parts of one cell."""

    def __init__(self, daemons: list[Daemon], memberships: list[Membership]) -> None:
        self.daemons = daemons
        self._memberships = memberships
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._places: dict[str, Endpoint] = {}
        self._count = 0

    def doors(self) -> list[tuple[str, int]]:
        """Return where clients connect: one address and port for each balancer."""
        places = [daemon.proxy.settings.frontend_bind.rpartition(":") for daemon in self.daemons]
        return [(host, int(port)) for host, _, port in places]

    def start(self, *names: str) -> None:
        """Start applications at the same time; a name that has had one gets it back at the same place."""
        for name in names:
            if name not in self._places:
                self._count += 1
                address = f"127.0.30.{self._count}"
                self._places[name] = Endpoint(address, free_port(address))
            address, port = self._places[name]
            self._processes[name] = subprocess.Popen(
                [sys.executable, application.__file__, address, str(port), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Linux shares processors out between sessions
            )
        for name in names:
            said = self._processes[name].stdout
            assert said
            assert said.readline() == "ready\n", f"the application {name} does not start"

    def tell(self, name: str, line: str) -> None:
        """Change an application; see its module."""
        pipe = self._processes[name].stdin
        assert pipe
        pipe.write(f"{line}\n")
        pipe.flush()

    def freeze(self, name: str) -> None:
        """Stop an application in the middle of what it does: it accepts connections and says nothing."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self._processes[name].send_signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        """Kill an application."""
        process = self._processes[name]
        process.kill()
        process.communicate(timeout=10)

    def end(self) -> None:
        """Kill all applications."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.communicate()

    def join(self, *names: str) -> None:
        """Have members join."""
        self._say("member-join", names)

    def leave(self, *names: str) -> None:
        """Have members leave; their applications go on."""
        self._say("member-leave", names)

    def tag(self, name: str, **tags: str) -> None:
        """Give a member further tags."""
        self._say("member-update", (name,), tags)

    def wait_up(self, *names: str) -> None:
        """Wait until all balancers have these servers up."""
        for daemon in self.daemons:
            wait_for(lambda daemon=daemon: set(names) <= daemon.up().keys(), f"{names} are up", 30)

    def read_weights(self) -> dict[str, float]:
        """Return the effective weight of each server at the first balancer."""
        answer = ask(self.daemons[0].proxy.settings.runtime_socket, "show stat nodes 4 -1", _FRONT_S)
        rows = csv.DictReader(io.StringIO(answer.removeprefix("# ")))
        return {row["svname"]: float(row["weight"] or 0) for row in rows if row["pxname"] == "nodes"}

    def _say(self, kind: str, names: tuple[str, ...], tags: Mapping[str, str] | None = None) -> None:
        for membership in self._memberships:
            members = [
                Member(
                    name,
                    self._places[name].address,
                    {"role": "web", "port": str(self._places[name].port)} | (tags or {}),
                )
                for name in names
            ]
            membership.put(members, kind)
            membership.hint(kind, members)
            membership.event(kind, members)


@contextlib.contextmanager
def running_site(
    directory: Path, names: list[str], environment: Mapping[str, str], balancer_count: int = 1, services: str = ""
) -> Iterator[Site]:
    """Run a site for the length of the block; it begins when all balancers have all servers up.

    Args:
        directory: Where the files of the balancers are.
        names: The names of the first servers.
        environment: SERF_HAPROXY_* variables of the balancers.
        balancer_count: The number of balancers.
        services: The text of the services file.
    """
    with contextlib.ExitStack() as stack:
        daemons, memberships = [], []
        for number in range(balancer_count):
            home = directory / f"lb{number + 1}"
            home.mkdir()
            if services:
                (home / "services.toml").write_text(services)
            proxy: Proxy = stack.enter_context(running_proxy(home, **environment))
            memberships.append(Membership(proxy.environment))
            stack.enter_context(serving(memberships[-1], proxy.settings.rpc_addr))
            daemons.append(stack.enter_context(running_daemon(proxy)))
        site = Site(daemons, memberships)
        stack.callback(site.end)
        site.start(*names)
        site.join(*names)
        site.wait_up(*names)
        yield site
