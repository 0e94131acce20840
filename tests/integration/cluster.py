"""A lab as the tests use it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import requests

import probe
import workers
from integration.proxy import wait_for
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.serf.rpc import Connection, RpcAddress
from serf_haproxy.settings import Settings, load_settings

PORTS = workers.lab_bases()


class Cluster:
    """A lab, with the checks and commands that the tests need."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @property
    def settings(self) -> Settings:
        """The settings of the first balancer."""
        return load_settings(self.lab.env("lb1"))

    def balancer(self, name: str = "lb1") -> dict[str, str]:
        """Return the entry of a balancer in the lab's status."""
        return next(row for row in self.lab.status()["balancers"] if row["name"] == name)

    def node(self, name: str) -> dict[str, str]:
        """Return the entry of a node in the lab's status."""
        return next(row for row in self.lab.status()["nodes"] if row["name"] == name)

    def servers(self, name: str = "lb1") -> set[str]:
        """Return the names of the servers of a balancer's HAProxy."""
        return set(probe.read_servers(load_settings(self.lab.env(name))) or ())

    def ask(self, name: str) -> Connection:
        """Return a connection to the RPC of a node's Serf agent, with the key from its file."""
        row = self.node(name)
        host, _, port = row["rpc_addr"].rpartition(":")
        return Connection(RpcAddress(host, int(port), row["rpc_auth_file"], 30.0))

    def seen(self) -> set[str]:
        """Return the addresses of the nodes that answer eight requests through the first frontend."""
        url = self.balancer()["frontend_url"]
        answers = (requests.get(url, timeout=10, headers={"Connection": "close"}) for _ in range(8))
        return {answer.headers["X-Backend-IP"] for answer in answers if answer.ok}

    def pid(self, service: str) -> int:
        """Return the process id of a supervised service of the first balancer."""
        argv = ["s6-svstat", "-o", "pid", os.path.join(self.balancer()["service_dir"], service)]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    def control(self, service: str, *words: str) -> None:
        """Run s6-svc with options for a service of the first balancer."""
        subprocess.run(["s6-svc", *words, os.path.join(self.balancer()["service_dir"], service)], check=True)

    def wait_servers(self, *names: str, timeout_s: float = 30.0) -> None:
        """Wait until the first balancer's HAProxy has exactly these servers."""
        wait_for(lambda: self.servers() == set(names), f"HAProxy has {names}", timeout_s)

    def is_right(self) -> bool:
        """Return whether haproxy.cfg follows from the node files, and HAProxy runs it."""
        right = probe.render(self.settings, probe.decide(self.settings).servers)
        live = Path(self.settings.config_path).read_text()
        return live == right.text and probe.runs_published(self.settings)


@contextlib.contextmanager
def make_cluster(directory: Path, nodes: int, balancers: int = 1) -> Iterator[Cluster]:
    """Run a lab for the length of a block."""
    lab = Lab(directory, next(PORTS))
    try:
        lab.up(nodes, balancers)
        yield Cluster(lab)
    finally:
        lab.down()
