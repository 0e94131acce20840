"""Clusters of containers and functions that read their state."""

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

# The options that docs/reference/image-security.md recommends. Every test uses them.
CONFINED = (
    "--read-only",
    "--tmpfs=/run",
    "--cap-drop=ALL",
    "--cap-add=CHOWN",
    "--cap-add=KILL",
    "--cap-add=SETGID",
    "--cap-add=SETUID",
    "--security-opt=no-new-privileges",
    "--health-interval=60s",  # otherwise the checks of all containers use more CPU time than the containers
)
JOIN_S = 90.0
FAIL_S = 60.0  # Serf detects a failure within 5 to 22 s, later on a node that is cut off; the grace follows
# The time until a node is back. Serf refuses a name at another address until 30 s after the failure, and the refused
# node announces itself again only with a full state exchange, 30 to 60 s after its start and then every 30 s. With the
# same address, each Serf agent tries to reach a failed member every 30 s, but not each time.
BACK_S = 180.0
_NUMBERS = itertools.count(1)

AnyContainer = TypeVar("AnyContainer", bound="Container")


class Container:
    """One container; its name is its host name and its node name."""

    def __init__(self, engine: Engine, name: str, network: str, container_id: str) -> None:
        self.engine = engine
        self.name = name
        self.network = network
        self.id = container_id

    @property
    def state(self) -> dict[str, Any]:
        """The engine's state of the container: Running, ExitCode, Health and so on."""
        state: dict[str, Any] = self.inspect()["State"]
        return state

    @property
    def address(self) -> str:
        """Its address in the cluster's network, "" while it has none."""
        networks = self.inspect()["NetworkSettings"]["Networks"]
        address: str = networks[self.network]["IPAddress"] if self.network in networks else ""
        if address:
            load.OWN_ADDRESSES.add(address)
        return address

    @property
    def is_healthy(self) -> bool:
        """Whether its last health check succeeded."""
        return bool(self.state["Health"]["Status"] == "healthy")

    def inspect(self) -> dict[str, Any]:
        """Return the engine's full description of the container."""
        inspected: dict[str, Any] = json.loads(self.engine("inspect", self.id))[0]
        return inspected

    def exec(self, *argv: str, user: str = "root", is_checked: bool = True) -> str:
        """Run a command in the container; return its output."""
        return self.engine("exec", f"--user={user}", self.id, *argv, is_checked=is_checked)

    def slow(self, delay_ms: int) -> None:
        """Have the web application in this container delay its answers, but not those to health checks.

        It takes this order from its own machine alone.
        """
        order = json.dumps({"delay": delay_ms, "checks": False})
        script = "import sys, urllib.request as r; r.urlopen('http://127.0.0.1:3000/delay', sys.argv[1].encode(), 10)"
        self.exec("/opt/webapp/bin/python", "-I", "-c", script, order)

    def spy(self, script: str) -> str:
        """Run a shell script in a second container that can read all processes of this one; return its output."""
        where = [f"--label={self.engine.label}", f"--pid=container:{self.id}", "--network=none"]
        return self.engine(
            "run", "--rm", "--cap-add=SYS_PTRACE", *where, self.engine.base, "sh", "-c", f"({script}) 2>&1; true"
        )

    def pid(self, service: str) -> int:
        """Return the process id, inside the container, of a supervised process."""
        return int(self.exec("s6-svstat", "-o", "pid", f"/run/service/{service}"))

    def serf(self, *words: str, is_checked: bool = True) -> str:
        """Run a command against the container's Serf agent, with the RPC's key; return its output."""
        return self.exec("/run/service/serf/data/ask", *words, is_checked=is_checked)

    def log(self) -> str:
        """Return the container's log."""
        return self.engine("logs", self.id)

    def members(self, status: str) -> set[str]:
        """Return the names of the members with this status in this container's Serf; none while it does not answer."""
        listing = self.serf("members", f"-status={status}", is_checked=False).splitlines()
        return {line.split()[0] for line in listing if f" {status} " in line}

    def stop(self, *options: str) -> float:
        """Stop the container with `docker stop`; return how long that took, seconds."""
        started_s = time.monotonic()
        self.engine("stop", *options, self.id)
        return time.monotonic() - started_s

    def wait_end(self) -> int:
        """Wait until the container ends by itself; return its exit code."""
        wait_for(lambda: not self.state["Running"], f"{self.name} ends", JOIN_S)
        return int(self.state["ExitCode"])


class Balancer(Container):
    """A balancer's container and its HAProxy."""

    def url(self, path: str = "/") -> str:
        """Return a URL of the frontend."""
        return f"http://{self.address}{path}"

    def column(self, title: str, service: str = "nodes") -> dict[str, str]:
        """Return a column of the stats page by server name, for one service."""
        text = requests.get(f"http://{self.address}:1936/;csv", timeout=5).text
        rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
        return {
            row["svname"]: row[title]
            for row in rows
            if row["pxname"] == service and row["svname"] not in ("FRONTEND", "BACKEND")
        }

    def views(self, service: str = "nodes") -> dict[str, str] | None:
        """Return HAProxy's state of each server of a service by name; None while the stats page does not answer."""
        try:
            return self.column("status", service)
        except requests.RequestException:
            return None

    def view(self, name: str) -> str:
        """Return one server's state, "" when it does not exist, "?" while the stats page does not answer."""
        views = self.views()
        return "?" if views is None else views.get(name, "")

    def has_given_up(self, name: str) -> bool:
        """Return whether a server is removed, or in maintenance until its last request has ended."""
        return self.view(name) in ("", "MAINT")

    def serves(self, *names: str) -> bool:
        """Return whether HAProxy has exactly these servers and all are up."""
        return self.views() == dict.fromkeys(names, "UP")

    def wait_servers(self, *names: str, timeout_s: float = JOIN_S) -> None:
        """Wait until HAProxy has exactly these servers and all are up."""
        wait_for(lambda: self.serves(*names), lambda: f"{self.name} serves {names}\n{self.story()}", timeout_s)

    def story(self) -> str:
        """Return the servers, the members and the log, for the message of a failed test."""
        members = self.serf("members", is_checked=False)
        lines = [line for line in self.log().splitlines() if not line.startswith("haproxy:")]
        return "\n".join([str(self.views()), members, *lines[-60:]])

    def ask(self) -> dict[str, Any]:
        """Make one request on a new connection; return the web application's answer."""
        answer = requests.get(self.url(), headers={"Connection": "close"}, timeout=10)
        answer.raise_for_status()
        who: dict[str, Any] = answer.json()
        return who

    def shares(self, request_count: int) -> dict[str, int]:
        """Make this many requests; return how many each web application answered."""
        hosts = [self.ask()["host"] for _ in range(request_count)]
        return {host: hosts.count(host) for host in set(hosts)}

    def is_right(self) -> bool:
        """Return whether a pass finds nothing to do."""
        said = self.exec("serf-haproxy", "once", user="serf-haproxy", is_checked=False).splitlines()
        return any(
            line.startswith("UNCHANGED ") for line in said
        )  # there may be warnings too: this command has no RPC key


class Cluster:
    """A Docker network and its containers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.network = f"{PREFIX}-{engine.label.rpartition('=')[2]}-{next(_NUMBERS)}"
        self.containers: list[Container] = []
        self._make_network()

    def close(self) -> None:
        """Remove the network with all its containers and volumes."""
        if self.containers:
            self.engine("rm", "--force", "--volumes", *(container.id for container in self.containers))
        self.engine("network", "rm", self.network, is_checked=False)  # if this fails, `remove_all` does it

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

    def start(self, name: str, image: str, *options: str, command: Sequence[str] = ()) -> Container:
        """Start another container with only these options, and with a command if it is not the image's own."""
        return self._add(Container, name, image, options, command)

    @contextlib.contextmanager
    def holding(self, name: str, address: str, join: str = "lb1") -> Iterator[Container]:
        """Run a web application at this free address for the duration of a block; it leaves afterwards."""
        holder = self.webapp(name, f"--ip={address}", join=join)
        try:
            yield holder
        finally:
            holder.stop()
            self.remove(holder)

    def remove(self, container: Container) -> None:
        """Remove one container of the cluster."""
        self.containers.remove(container)
        self.engine("rm", "--force", "--volumes", container.id)

    def _make_network(self) -> None:
        """Create the network in the subnet that the engine chooses.

        A container can have a fixed address only in a network with an explicit subnet, so the network is created twice.
        Another worker may get the subnet in between: then the engine chooses again.
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

    def _add(
        self, kind: type[AnyContainer], name: str, image: str, options: Sequence[str], command: Sequence[str] = ()
    ) -> AnyContainer:
        where = [f"--label={self.engine.label}", f"--network={self.network}", f"--network-alias={name}"]
        started = self.engine("run", "--detach", f"--hostname={name}", *where, *options, image, *command)
        container = kind(self.engine, name, self.network, started.split()[-1])
        self.containers.append(container)
        return container


def _variables(environ: Mapping[str, str]) -> list[str]:
    return [f"--env={key}={value}" for key, value in environ.items()]
