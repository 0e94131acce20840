"""Tables of sticky clients with real HAProxys: kept through reloads, and shared by balancers that prove themselves."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.sticky import Connection, everywhere
from integration.test_services import wait_up
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.control.report import read_report
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.policy.peers import SETTLE_S
from serf_haproxy.policy.proof import Secret, make_proof
from serf_haproxy.serf.events import Member, make_member
from serf_haproxy.serf.roster import Roster
from serf_haproxy.show.table import format_table

pytestmark = pytest.mark.usefixtures("time_limit")

SECRET = "correct horse battery staple"
SERVICES = """\
[pg]
mode = "tcp"
bind = "{bind}"
stick = "source"
stick_size = 1000
stick_expire_s = 600
health = "tcp"
proof_secret_file = ""
drain_timeout_s = 1.5
"""
CLIENTS = [f"127.60.1.{number}" for number in range(1, 41)]


class Cluster:
    """What Serf says, and the balancers, each with its address.

    Args:
        proxies: The balancers by name.
        port: Where the application is.
    """

    def __init__(self, proxies: dict[str, Proxy], port: int) -> None:
        self.proxies = proxies
        self.members: dict[str, tuple[str, Member]] = {}
        for number in (1, 2, 3):
            self.say(f"db{number}", f"127.0.9.{number}", {"svc.pg": str(port)})

    def say(self, name: str, address: str, tags: dict[str, str], status: str = "alive") -> None:
        """Let Serf say something of a member."""
        self.members[name] = status, make_member(name, address, tags)

    def say_balancer(self, name: str, address: str, status: str = "alive", secret: str = SECRET) -> None:
        """Let Serf say something of a balancer; its proof is made with a secret."""
        tags = {"role": "balancer"}
        proof = make_proof(Secret(secret.encode()), name, address, tags)
        self.say(name, address, {**tags, "proof": proof}, status)

    def run_pass(self, name: str) -> Outcome:
        """Make a pass of a balancer."""
        return reconcile(self.proxies[name].settings, lambda: Roster(time.time_ns(), name, self.members))

    def run_until(self, name: str, verdict: Verdict) -> Outcome:
        """Make passes when they are due until one has this verdict."""
        for _ in range(40):
            outcome = self.run_pass(name)
            if outcome.verdict is verdict:
                return outcome
            time.sleep(min(1.0, outcome.again_s or 0.1))
        raise AssertionError(f"no {verdict}: {outcome}")

    def age(self, seconds: float) -> None:
        """Let all that Serf has said be older, for every balancer."""
        at_s = time.time() - seconds
        for proxy in self.proxies.values():
            for path in Path(proxy.settings.nodes_dir).iterdir():
                os.utime(path, (at_s, at_s))

    def visit(self, name: str, clients: list[str] = CLIENTS) -> dict[str, str]:
        """Return the server that each client gets at a balancer."""
        (bind,) = (one.bind for one in probe.read_services(self.proxies[name].settings).listed if one.bind)
        found = {}
        for client in clients:
            with contextlib.closing(Connection(bind, client)) as connection:
                found[client] = connection.get().server
        return found

    def count_entries(self, name: str) -> int:
        """Return how many clients are in the table of a balancer."""
        answer = ask(self.proxies[name].settings.runtime_socket, "show table pg", 5)
        return answer.count("server_id=")

    def list_peers(self, name: str) -> list[str]:
        """Return the peers in the configuration of a balancer."""
        lines = (probe.read_live(self.proxies[name].settings) or "").splitlines()
        return [line.split()[1] for line in lines if line.startswith("    peer ")]


@pytest.fixture
def cluster(short_dir: Path) -> Iterator[Cluster]:
    """Yield two balancers at different addresses, with a table of sticky clients."""
    secret = short_dir / "proof.secret"
    secret.write_text(f"{SECRET}\n")
    peers_port = free_port()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(everywhere(short_dir))
        proxies = {}
        for name in ("lb1", "lb2"):
            directory = short_dir / name
            directory.mkdir()
            (directory / "services.toml").write_text(SERVICES.format(bind=f"127.0.0.1:{free_port()}"))
            environ = {"SERF_HAPROXY_PROOF_SECRET_FILE": str(secret), "SERF_HAPROXY_PEERS_PORT": str(peers_port)}
            proxies[name] = stack.enter_context(running_proxy(directory, **environ))
        yield Cluster(proxies, port)


def wait_all_up(proxy: Proxy) -> None:
    """Wait until all servers of the service are up."""
    wait_up(proxy, ("pg", "db1"), ("pg", "db2"), ("pg", "db3"))


def test_tables_outlive_reloads_and_are_shared(cluster: Cluster) -> None:
    """A client has one server through reloads and at both balancers; only a proven balancer is a peer."""
    one, two = cluster.proxies.values()
    cluster.say_balancer("lb1", "127.0.8.1")
    cluster.say_balancer("lb3", "127.0.8.3", secret="not the secret of this cluster")
    assert cluster.run_pass("lb1").verdict is Verdict.RELOADED
    wait_all_up(one)
    assert cluster.list_peers("lb1") == ["lb1"]
    before = cluster.visit("lb1")
    assert len(set(before.values())) == 3
    assert cluster.count_entries("lb1") == len(CLIENTS)

    # HAProxy would lose the table with a reload in the first seconds of a worker.
    started_s = time.monotonic()
    outcome = reconcile(one.settings.replace(maxconn=1000), lambda: Roster(time.time_ns(), "lb1", cluster.members))
    assert outcome.verdict is Verdict.APPLIED
    assert outcome.again_s is not None
    assert 0.9 < outcome.again_s <= 1
    one.settings = one.settings.replace(maxconn=1000)
    cluster.run_until("lb1", Verdict.RELOADED)
    assert time.monotonic() - started_s < 15
    wait_for(lambda: cluster.count_entries("lb1") == len(CLIENTS), "the new worker has the table", 10)
    assert cluster.visit("lb1") == before

    # Another balancer: a peer when it has been there for some seconds.
    reload_count = one.reload_count()
    cluster.say_balancer("lb2", "127.0.8.2")
    outcome = cluster.run_pass("lb1")
    assert outcome.verdict is Verdict.UNCHANGED
    assert outcome.again_s is not None
    assert 0 < outcome.again_s <= SETTLE_S
    cluster.run_pass("lb2")
    cluster.age(SETTLE_S)
    for name in cluster.proxies:
        cluster.run_until(name, Verdict.RELOADED)
        assert cluster.list_peers(name)[0] == name
        assert set(cluster.list_peers(name)) == {"lb1", "lb2"}
    wait_all_up(two)
    wait_for(lambda: cluster.count_entries("lb2") == len(CLIENTS), "the other balancer has the table", 20)
    assert cluster.visit("lb2") == before
    assert cluster.visit("lb1") == before

    # A failed balancer costs no reload, nor does its return.
    assert one.reload_count() == reload_count + 1
    for status in ("failed", "alive", "left", "alive"):
        cluster.say_balancer("lb2", "127.0.8.2", status)
        assert cluster.run_pass("lb1").verdict is Verdict.UNCHANGED
    assert cluster.list_peers("lb1") == ["lb1", "lb2"]


def test_a_drained_server_keeps_the_clients_of_its_table(cluster: Cluster) -> None:
    """Joins, drains and leaves take no reload; a drained server keeps its clients until the limit, gets no new ones."""
    (one, _) = cluster.proxies.values()
    cluster.say_balancer("lb1", "127.0.8.1")
    cluster.run_pass("lb1")
    wait_all_up(one)
    before = cluster.visit("lb1")
    reload_count = one.reload_count()
    port = dict(pair.split("=") for pair in cluster.members["db1"][1].tags)["svc.pg"]
    cluster.say("db4", "127.0.9.4", {"svc.pg": port})
    cluster.say("db1", "127.0.9.1", {"svc.pg": f"{port}:drain"})
    assert cluster.run_pass("lb1").verdict is Verdict.APPLIED
    wait_up(one, ("pg", "db4"))
    fresh = [client.replace("127.60.1", "127.60.2") for client in CLIENTS]
    assert set(cluster.visit("lb1", fresh).values()) == {"127.0.9.2", "127.0.9.3", "127.0.9.4"}
    assert cluster.visit("lb1", fresh) == cluster.visit("lb1", fresh), "the added server has its clients too"
    assert cluster.visit("lb1") == before
    cluster.say("db1", "127.0.9.1", {"svc.pg": port}, "left")
    assert cluster.run_pass("lb1").verdict is Verdict.UNCHANGED
    assert cluster.visit("lb1") == before, "a leave is a drain"

    def is_gone() -> bool:
        cluster.run_pass("lb1")
        return ("pg", "db1") not in probe.read_status(one.settings)

    wait_for(is_gone, "the end of the drain", 15)
    after = cluster.visit("lb1")
    assert {client for client in before if before[client] != after[client]} == {
        client for client in before if before[client] == "127.0.9.1"
    }
    assert one.reload_count() == reload_count


def test_the_status_tells_whether_a_table_is_shared(cluster: Cluster) -> None:
    """A balancer behind NAT has no peers, which `status` says with the reason."""
    (one, _) = cluster.proxies.values()

    def read_line() -> str:
        lines = format_table(read_report(one.settings)).splitlines()
        return next(line for line in lines if line.startswith("service pg "))

    cluster.say_balancer("lb1", "203.0.113.9")
    cluster.run_pass("lb1")
    assert cluster.list_peers("lb1") == []
    assert (
        "shared with no balancer, and lost by a reload: its address 203.0.113.9 in Serf is none of this" in read_line()
    )
    cluster.say_balancer("lb1", "127.0.8.1")
    cluster.run_pass("lb1")
    assert read_line().endswith("its table of clients is kept through reloads, shared with no other balancer")
