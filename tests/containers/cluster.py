"""Clusters of containers, and the questions that the tests ask them."""

import contextlib
import csv
import io
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import requests

from containers.engine import PREFIX, Engine
from integration import load
from integration.proxy import wait_for

# What docs/security.md promises to be enough. Every test runs with it.
CONFINED = (
    "--read-only",
    "--tmpfs=/run:exec",
    "--cap-drop=ALL",
    "--cap-add=CHOWN",
    "--cap-add=KILL",
    "--cap-add=SETGID",
    "--cap-add=SETUID",
    "--security-opt=no-new-privileges",
    "--health-interval=60s",  # else the checks of all containers take more of the machine than the containers
)
JOIN_S = 30.0
FAIL_S = 60.0  # Serf's failure detection takes 5 to 22 s, more for an agent that is cut off; then comes the grace
# A name that comes back at another address: Serf refuses it until 30 s after the failure, and the agent that was
# refused tells of itself again with its next exchange of everything, 30 to 60 s after its start and every 30 s then.
# The same address after a cut: every agent tries one that failed every 30 s, but not each time.
BACK_S = 180.0
_NUMBERS = itertools.count(1)

AnyContainer = TypeVar("AnyContainer", bound="Container")


class Container:
    """One container; its host name, and so its node's name, is its name in the cluster."""

    def __init__(self, engine: Engine, name: str, network: str, container_id: str) -> None:
        self.engine = engine
        self.name = name
        self.network = network
        self.id = container_id

    @property
    def state(self) -> dict[str, Any]:
        """What the engine says of it: Running, ExitCode, Health and so on."""
        state: dict[str, Any] = self.inspect()["State"]
        return state

    @property
    def address(self) -> str:
        """Its address in the network of the cluster, "" while it has none."""
        networks = self.inspect()["NetworkSettings"]["Networks"]
        address: str = networks[self.network]["IPAddress"] if self.network in networks else ""
        if address:
            load.OWN_ADDRESSES.add(address)
        return address

    @property
    def is_healthy(self) -> bool:
        """Whether its last health check was good."""
        return bool(self.state["Health"]["Status"] == "healthy")

    def inspect(self) -> dict[str, Any]:
        """Return all that the engine says of it."""
        inspected: dict[str, Any] = json.loads(self.engine("inspect", self.id))[0]
        return inspected

    def exec(self, *argv: str, user: str = "root", is_checked: bool = True) -> str:
        """Run a command in it; return what that prints."""
        return self.engine("exec", f"--user={user}", self.id, *argv, is_checked=is_checked)

    def spy(self, script: str) -> str:
        """Run a shell script beside it that sees its processes and may read all of them; return what it prints."""
        where = [f"--label={self.engine.label}", f"--pid=container:{self.id}", "--network=none"]
        return self.engine(
            "run", "--rm", "--cap-add=SYS_PTRACE", *where, self.engine.base, "sh", "-c", f"({script}) 2>&1; true"
        )

    def pid(self, service: str) -> int:
        """Return the process id, inside, of a supervised process."""
        return int(self.exec("s6-svstat", "-o", "pid", f"/run/service/{service}"))

    def log(self) -> str:
        """Return all that it has logged."""
        return self.engine("logs", self.id)

    def members(self, status: str) -> set[str]:
        """Return the names of the members that Serf here gives this status; none while Serf does not answer."""
        listing = self.exec("serf", "members", f"-status={status}", is_checked=False).splitlines()
        return {line.split()[0] for line in listing if f" {status} " in line}

    def stop(self, *options: str) -> float:
        """Stop it as `docker stop` does; return the seconds that this took."""
        started_s = time.monotonic()
        self.engine("stop", *options, self.id)
        return time.monotonic() - started_s

    def wait_end(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        wait_for(lambda: not self.state["Running"], f"{self.name} ends", JOIN_S)
        return int(self.state["ExitCode"])


class Balancer(Container):
    """A balancer and what its HAProxy says."""

    def url(self, path: str = "/") -> str:
        """Return a URL of the frontend."""
        return f"http://{self.address}{path}"

    def column(self, title: str) -> dict[str, str]:
        """Return a column of the stats page for the servers by their names."""
        text = requests.get(f"http://{self.address}:1936/;csv", timeout=5).text
        rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
        return {row["svname"]: row[title] for row in rows if row["pxname"] == "nodes" and row["svname"] != "BACKEND"}

    def views(self) -> dict[str, str] | None:
        """Return each server's state in HAProxy by its name; None while the stats page is away."""
        try:
            return self.column("status")
        except requests.RequestException:
            return None

    def view(self, name: str) -> str:
        """Return one server's state, "" when it is not there, "?" while the stats page is away."""
        views = self.views()
        return "?" if views is None else views.get(name, "")

    def has_given_up(self, name: str) -> bool:
        """Tell whether a server is gone, or in maintenance until a request that it never answered has ended."""
        return self.view(name) in ("", "MAINT")

    def serves(self, *names: str) -> bool:
        """Tell whether exactly these servers are there and all are in use."""
        return self.views() == dict.fromkeys(names, "UP")

    def wait_servers(self, *names: str, timeout_s: float = JOIN_S) -> None:
        """Wait until exactly these servers are there and all are in use."""
        wait_for(lambda: self.serves(*names), lambda: f"{self.name} serves {names}\n{self.story()}", timeout_s)

    def story(self) -> str:
        """Return what a person would look at when the servers are not as they should be."""
        members = self.exec("serf", "members", is_checked=False)
        lines = [line for line in self.log().splitlines() if not line.startswith("haproxy:")]
        return "\n".join([str(self.views()), members, *lines[-60:]])

    def ask(self) -> dict[str, Any]:
        """Make one request on a connection of its own; return who answered."""
        answer = requests.get(self.url(), headers={"Connection": "close"}, timeout=10)
        answer.raise_for_status()
        who: dict[str, Any] = answer.json()
        return who

    def shares(self, request_count: int) -> dict[str, int]:
        """Return the requests that each web application answers out of so many."""
        hosts = [self.ask()["host"] for _ in range(request_count)]
        return {host: hosts.count(host) for host in set(hosts)}

    def is_right(self) -> bool:
        """Tell whether its resident finds nothing to do."""
        said = self.exec("serf-haproxy", "once", user="agent", is_checked=False).splitlines()
        return any(line.startswith("UNCHANGED ") for line in said)  # beside warnings: it has no key of the RPC


class Cluster:
    """A network and the containers in it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.network = f"{PREFIX}-{engine.label.rpartition('=')[2]}-{next(_NUMBERS)}"
        self.containers: list[Container] = []
        self._make_network()

    def close(self) -> None:
        """Remove it with all its containers and volumes."""
        if self.containers:
            self.engine("rm", "--force", "--volumes", *(container.id for container in self.containers))
        self.engine("network", "rm", self.network, is_checked=False)  # else `remove_all` does it

    def balancer(self, name: str = "lb1", *options: str, **environ: str) -> Balancer:
        """Start a balancer."""
        return self._add(Balancer, name, f"{PREFIX}/balancer", [*CONFINED, *options, *_variables(environ)])

    def webapp(self, name: str, *options: str, join: str = "lb1", **environ: str) -> Container:
        """Start a web application."""
        variables = _variables({"SERF_JOIN": join, "APP_TAG": name} | environ)
        return self._add(Container, name, f"{PREFIX}/webapp", [*CONFINED, *options, *variables])

    def webapps(self, *names: str, join: str = "lb1") -> list[Container]:
        """Start web applications."""
        return [self.webapp(name, join=join) for name in names]

    def start(self, name: str, image: str, *options: str) -> Container:
        """Start any other container, with nothing but these options."""
        return self._add(Container, name, image, options)

    @contextlib.contextmanager
    def holding(self, name: str, address: str, join: str = "lb1") -> Iterator[Container]:
        """Run a web application at a free address of this network for the length of a block; it leaves in the end."""
        holder = self.webapp(name, f"--ip={address}", join=join)
        try:
            yield holder
        finally:
            holder.stop()
            self.remove(holder)

    def remove(self, container: Container) -> None:
        """Remove one of its containers."""
        self.containers.remove(container)
        self.engine("rm", "--force", "--volumes", container.id)

    def _make_network(self) -> None:
        """Make the network in the subnet that the engine chooses.

        Only in a network whose subnet was named can a container be given an address, so it is made twice. Another
        worker may be given the subnet in between: then the engine chooses again.
        """
        words = ["network", "create", f"--label={self.engine.label}"]
        said = "overlaps"
        while "overlaps" in said:
            self.engine(*words, self.network)
            found = json.loads(self.engine("network", "inspect", "--format={{json .IPAM.Config}}", self.network))
            subnet = next(pool["Subnet"] for pool in found if ":" not in pool["Subnet"])
            self.engine("network", "rm", self.network)
            said = self.engine(*words, f"--subnet={subnet}", self.network, is_checked=False)
        self.engine("network", "inspect", self.network)  # else it fails here, and says why

    def _add(self, kind: type[AnyContainer], name: str, image: str, options: Sequence[str]) -> AnyContainer:
        where = [f"--label={self.engine.label}", f"--network={self.network}", f"--network-alias={name}"]
        started = self.engine("run", "--detach", f"--hostname={name}", *where, *options, image)
        container = kind(self.engine, name, self.network, started.split()[-1])
        self.containers.append(container)
        return container


def _variables(environ: Mapping[str, str]) -> list[str]:
    return [f"--env={key}={value}" for key, value in environ.items()]
