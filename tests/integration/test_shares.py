"""The shares of every algorithm, in two services side by side, after each change, with a real HAProxy."""

import contextlib
import math
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fakes.servers import at_once, serving_tcp
from integration.proxy import Proxy, running_proxy, wait_for
from integration.sticky import COOKIE, Connection, everywhere
from integration.test_services import wait_up
from serf_haproxy.config.ids import choose_id
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.system.network import split_endpoint

pytestmark = pytest.mark.usefixtures("time_limit")

SERVICES = ("one", "two")
COUNT = 240  # requests of a measurement
HELD, HELD_MOST = 18, 10  # requests at once, and the most of them that a server gets with `first`
POINTS = 16  # places of a server on HAProxy's ring, for each unit of its weight
HASHES = {"source": "source", "path": "path", "uri": "uri", "header": "header:Host", "cookie": f"cookie:{COOKIE}"}
# What happens, one after another: node, status, and its weight in each service; weight 0 is a drain.
CHANGES = (
    ("n4", "alive", (100, 200)),
    ("n2", "alive", (250, 50)),
    ("n1", "alive", (0, 0)),
    ("n3", "left", (200, 100)),
)
FIRST = {"n1": (100, 50), "n2": (100, 150), "n3": (200, 100)}


class Cluster:
    """Two services with the same nodes, which have other weights in each.

    Args:
        proxy: The balancer.
        places: The endpoint of each node.
    """

    def __init__(self, proxy: Proxy, places: Mapping[str, str]) -> None:
        self.proxy, self.places = proxy, places
        self.weights: dict[str, dict[str, int]] = {service: {} for service in SERVICES}

    def change(self, name: str, status: str, weights: tuple[int, int]) -> None:
        """Let Serf say something of a node."""
        address, port = split_endpoint(self.places[name])
        tags = tuple(f"svc.{service}={port}:w{weight}" for service, weight in zip(SERVICES, weights, strict=True))
        record(self.proxy.settings.nodes_dir, status, Member(name, address, "", tags))
        for service, weight in zip(SERVICES, weights, strict=True):
            self.weights[service][name] = weight if status == "alive" else 0

    def settle(self) -> None:
        """Make a pass, and wait until all servers are up."""
        assert self.proxy.run_pass().verdict in (Verdict.APPLIED, Verdict.RELOADED)
        alive = [(service, name) for service in SERVICES for name, weight in self.weights[service].items() if weight]
        wait_up(self.proxy, *alive)

    def find_misses(self, service: str, counts: Mapping[str, int], count: int, *, is_hashed: bool) -> list[str]:
        """Return the nodes whose requests are more than three standard deviations from their share.

        Where a server is chosen by a place on HAProxy's ring, the draw of the places deviates too.
        """
        weights = self.weights[service]
        misses = []
        for name, weight in weights.items():
            share = weight / sum(weights.values())
            places = share * (1 - share) * count**2 / (POINTS * sum(weights.values())) if is_hashed else 0.0
            deviation = math.sqrt(count * share * (1 - share) + places)
            if abs(counts[name] - count * share) > 3 * deviation:
                misses.append(f"{service}/{name}: {counts[name]} of {count}, should be {count * share:.0f}")
        return misses


def write_services(directory: Path, keys: str) -> None:
    """Write the services file: two services with the same keys."""
    tables = [f'[{service}]\nroutes = ["*.{service}.test"]\n{keys}' for service in SERVICES]
    (directory / "services.toml").write_text("".join(tables))


def ask(cluster: Cluster, count: int, generator: random.Random) -> dict[str, Counter[str]]:
    """Send requests to both services in turn, each with another key; return how many each node got."""
    names = {split_endpoint(endpoint)[0]: name for name, endpoint in cluster.places.items()}
    counts: dict[str, Counter[str]] = {service: Counter() for service in SERVICES}
    for _ in range(count):
        key = generator.getrandbits(40)
        source = f"127.{generator.randint(64, 126)}.{generator.randrange(256)}.{generator.randint(1, 254)}"
        with contextlib.closing(Connection(cluster.proxy.settings.frontend_bind, source)) as connection:
            for service in SERVICES:
                answer = connection.get(f"{key:x}", f"{key:x}.{service}.test", f"/{key:x}?{key}")
                assert answer.status == 200
                counts[service][names[answer.server]] += 1
    return counts


@pytest.mark.parametrize(
    "algorithm", ["roundrobin", "static-rr", "random", "source", "uri", *(f"hash {key}" for key in HASHES)]
)
def test_each_server_has_its_share_after_each_change(short_dir: Path, algorithm: str) -> None:
    """After a join, another weight, a drain and a leave each server has its share, in each of the services."""
    balance, _, key = algorithm.partition(" ")
    write_services(short_dir, f'balance = "{balance}"\n' + (f'hash_key = "{HASHES[key]}"\n' if key else ""))
    generator = random.Random(algorithm)
    with everywhere(short_dir) as port, running_proxy(short_dir) as proxy:
        cluster = Cluster(proxy, {f"n{number}": f"127.0.9.{number}:{port}" for number in range(1, 5)})
        for name, weights in FIRST.items():
            cluster.change(name, "alive", weights)
        for change in (None, *CHANGES):
            if change:
                cluster.change(*change)
            cluster.settle()
            is_hashed = balance in ("random", "source", "uri", "hash")
            for count in (COUNT, 2 * COUNT):  # one measurement of some hundred is beyond three standard deviations
                counts = ask(cluster, count, generator)
                misses = [
                    miss
                    for service in SERVICES
                    for miss in cluster.find_misses(service, counts[service], count, is_hashed=is_hashed)
                ]
                if not misses:
                    break
            assert misses == [], change
        # With static-rr the first servers, a join and another weight take a reload; a drain and a leave do not.
        assert proxy.reload_count() == (3 if balance == "static-rr" else 0)


class Holding:
    """An application that answers requests only when it is told to.

    Attributes:
        count: The requests that wait.
        release: Set to answer them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.release = threading.Event()

    def talk(self, connection: socket.socket) -> None:
        """Answer health checks at once, all else on release."""
        while data := connection.recv(65536):
            if data.startswith(b"GET"):
                release, self.count = self.release, self.count + 1
                assert release.wait(30)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@contextlib.contextmanager
def holding_requests(proxy: Proxy, applications: list[Holding], service: str) -> Iterator[None]:
    """Have requests wait in a service for the length of the block."""
    host, port = split_endpoint(proxy.settings.frontend_bind)
    before = sum(each.count for each in applications)
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(HELD):
            client = stack.enter_context(contextlib.closing(socket.create_connection((host, int(port)), 20)))
            client.sendall(f"GET / HTTP/1.1\r\nHost: a.{service}.test\r\n\r\n".encode())
            clients.append(client)
            wait_for(lambda: sum(each.count for each in applications) == before + len(clients), f"request {number}", 20)
        yield
        for each in applications:
            each.release.set()
        assert all(client.recv(100).startswith(b"HTTP/1.1 200") for client in clients)
        for each in applications:
            each.count, each.release = 0, threading.Event()


@pytest.mark.parametrize("balance", ["leastconn", "first"])
def test_requests_at_once_are_shared_after_each_change(short_dir: Path, balance: str) -> None:
    """With leastconn requests in work are shared by weight; with first each server is filled, in the order of ids."""
    write_services(short_dir, f'balance = "{balance}"\n' + f"server_maxconn = {HELD_MOST}\n" * (balance == "first"))
    with contextlib.ExitStack() as stack:
        applications = {f"n{number}": Holding() for number in range(1, 5)}
        places = {
            name: "{}:{}".format(*stack.enter_context(serving_tcp(at_once(application.talk))))
            for name, application in applications.items()
        }
        proxy = stack.enter_context(running_proxy(short_dir))
        cluster = Cluster(proxy, places)
        for name, weights in FIRST.items():
            cluster.change(name, "alive", weights)
        for change in (None, *CHANGES):
            if change:
                cluster.change(*change)
            cluster.settle()
            for service in SERVICES:
                with holding_requests(proxy, [*applications.values()], service):
                    counts = {name: application.count for name, application in applications.items()}
                if balance == "leastconn":
                    assert cluster.find_misses(service, counts, HELD, is_hashed=False) == [], change
                    continue
                able = sorted(
                    (name for name, weight in cluster.weights[service].items() if weight),
                    key=lambda name: choose_id((service, name)),
                )
                filled = dict(zip(able, (HELD_MOST, HELD - HELD_MOST), strict=False))
                assert counts == dict.fromkeys(counts, 0) | filled, change
        assert proxy.reload_count() == 0
