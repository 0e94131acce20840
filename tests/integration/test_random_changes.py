"""Random changes in five services under load: no reload, no failed request.

RANDOM_CHANGES=500 makes 500 changes, RANDOM_SEED=N repeats them.
"""

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import probe
from conftest import accepts
from integration.agents import run_serf
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.sticky import COOKIE, Connection, everywhere, worker_pid
from integration.test_daemon import running_daemon
from integration.test_services import list_servers, wait_up
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record

CHANGE_COUNT = int(os.environ.get("RANDOM_CHANGES", "100"))
SERF_CHANGE_COUNT = int(os.environ.get("RANDOM_CHANGES", "25"))
EVENTS = "member-join,member-leave,member-failed,member-update,member-reap"
SEED = int(os.environ.get("RANDOM_SEED") or random.randrange(2**32))
TCP = "tcp"
HTTP = ("nodes", "least", "rand", "sticky")
SERVICES = """\
[nodes]
balance = "roundrobin"

[least]
routes = ["least.test"]
balance = "leastconn"

[rand]
routes = ["rand.test"]
balance = "random"

[sticky]
routes = ["sticky.test"]
cookie = "{cookie}"

[tcp]
mode = "tcp"
bind = "{bind}"
stick = "source"
"""


class Node:
    """A node: where it is, and what it says in each service.

    Args:
        number: Its number, from which its name and addresses follow.
        ports: Where the application is.
    """

    def __init__(self, number: int, ports: tuple[int, int]) -> None:
        self.name, self.number, self.ports = f"web{number}", number, ports
        self.status, self.place = "left", 0
        self.options: dict[str, str] = {}

    @property
    def address(self) -> str:
        """Its address: the last bit of its place chooses one of two."""
        return f"127.0.9.{2 * self.number + self.place % 2}"

    def change(self, generator: random.Random) -> str:
        """Let the node change by chance; return how."""
        kinds = ["leave", "drain", "weight", "move", "backup", "services"] if self.status == "alive" else ["join"]
        kind = generator.choice(kinds)
        if kind in ("join", "leave"):
            self.status = "alive" if kind == "join" else "left"
        if kind in ("join", "services"):
            chosen = generator.sample([*HTTP, TCP], generator.randint(1, 5))
            self.options = {service: self.options.get(service, "") for service in chosen}
        if kind == "move":
            self.place = generator.choice([place for place in range(4) if place != self.place])
        if kind in ("drain", "weight", "backup"):
            service = generator.choice(sorted(self.options))
            word = f":w{generator.randint(1, 256)}" if kind == "weight" else f":{kind}"
            before = self.options[service]
            self.options[service] = "" if kind != "weight" and before else word
        return f"{self.name}: {kind}"

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags."""
        port = self.ports[self.place // 2]
        return tuple(f"svc.{service}={port}{option}" for service, option in sorted(self.options.items()))

    def tell(self, proxy: Proxy) -> None:
        """Write what Serf would say."""
        record(proxy.settings.nodes_dir, self.status, Member(self.name, self.address, "", self.tags))


class Clients:
    """Clients of one service: each keeps its cookie, and opens a new connection now and then."""

    def __init__(self, service: str, endpoint: str) -> None:
        self.service = service
        self.count = 0
        self.failures: list[str] = []
        self._endpoint = endpoint
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the clients after their present request."""
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        connection = Connection(self._endpoint)
        cookie = None
        while not self._stopping.wait(0.004):
            try:
                answer = connection.get(cookie, f"{self.service}.test")
                if answer.status != 200:
                    self.failures.append(f"{self.service}: {answer.status}")
                cookie = answer.cookie or cookie
                self.count += 1
            except (OSError, AssertionError) as error:
                self.failures.append(f"{self.service}: {error!r}")
                connection.close()
            if self.count % 5 == 0 or self.service == TCP:
                connection.close()
            if self.count % 50 == 0:
                cookie = None
        connection.close()


@contextlib.contextmanager
def running_services(directory: Path) -> Iterator[tuple[Proxy, tuple[int, int], dict[str, str]]]:
    """Run the balancer and the application; yield the proxy, the application's ports, and where each service is."""
    secret = directory / "secret"
    secret.write_text("a secret of sixteen or more characters\n")
    bind = f"127.0.0.1:{free_port()}"
    (directory / "services.toml").write_text(SERVICES.format(cookie=COOKIE, bind=bind))
    environ = {"SERF_HAPROXY_COOKIE_SECRET_FILE": str(secret), "SERF_HAPROXY_DRAIN_TIMEOUT_S": "1"}
    with (
        everywhere(directory) as first,
        everywhere(directory) as second,
        running_proxy(directory, **environ) as proxy,
    ):
        endpoints = dict.fromkeys(HTTP, proxy.settings.frontend_bind) | {TCP: bind}
        yield proxy, (first, second), endpoints


def test_random_changes_take_no_reload(short_dir: Path) -> None:
    """Joins, leaves, drains, weights, moves and backups in five services: 0 reloads and 0 failed requests."""
    generator = random.Random(SEED)
    with running_services(short_dir) as (proxy, ports, endpoints), contextlib.ExitStack() as stack:
        stays, *nodes = (Node(number, ports) for number in range(8))
        stays.status, stays.options = "alive", dict.fromkeys((*HTTP, TCP), "")
        stays.tell(proxy)
        proxy.run_pass()
        wait_up(proxy, *((service, stays.name) for service in (*HTTP, TCP)))
        pid, reload_count = worker_pid(proxy), proxy.reload_count()
        clients = [stack.enter_context(Clients(*item)) for item in endpoints.items()]
        for number in range(CHANGE_COUNT):
            node = generator.choice(nodes)
            what = node.change(generator)
            node.tell(proxy)
            outcome = proxy.run_pass()
            told = f"seed {SEED}, change {number}, {what}: {outcome}"
            assert outcome.verdict in (Verdict.APPLIED, Verdict.UNCHANGED), told
            failures = [failure for each in clients for failure in each.failures]
            assert failures == [], told
        assert (worker_pid(proxy), proxy.reload_count()) == (pid, reload_count)
        decided = {server.key for server in probe.decide(proxy.settings).servers}
        assert decided <= list_servers(proxy)
        for each in clients:
            each.stop()
    assert [failure for each in clients for failure in each.failures] == [], f"seed {SEED}"
    assert min(each.count for each in clients) > CHANGE_COUNT, {each.service: each.count for each in clients}


class Agent:
    """The Serf agent of a node, which starts, leaves and gets other tags as the node changes.

    Args:
        node: The node.
        join: The gossip address of another member.
    """

    def __init__(self, node: Node, join: str) -> None:
        self._node, self._join = node, join
        self._stack = contextlib.ExitStack()
        self._address, self._rpc_port, self._keys = "", 0, frozenset[str]()

    def follow(self) -> None:
        """Let Serf say what the node is now."""
        node = self._node
        is_moved = self._address not in ("", node.address)
        if self._address and (node.status == "left" or is_moved):
            self._leave()
            self.close()
        keys = frozenset(tag.partition("=")[0] for tag in node.tags)
        if node.status == "alive" and not self._address:
            self._address, self._rpc_port = node.address, free_port(node.address)
            options = "-profile=local", f"-join={self._join}"
            self._stack.enter_context(run_serf(node.name, self._address, self._rpc_port, *node.tags, options=options))
        elif node.status == "alive":
            words = [word for tag in node.tags for word in ("-set", tag)]
            self._run("tags", *words, *(word for key in self._keys - keys for word in ("-delete", key)))
        self._keys = keys

    def close(self) -> None:
        """End the Serf agent."""
        self._stack.close()
        self._address = ""

    def _leave(self) -> None:
        """Leave; an agent that has just started may refuse, and one that ends too soon does not answer."""
        for pause_s in (0.2, 0.5, 1.0):
            if self._run("leave", is_checked=False) or not accepts(self._address, self._rpc_port):
                return
            time.sleep(pause_s)
        self._run("leave")

    def _run(self, command: str, *words: str, is_checked: bool = True) -> bool:
        argv = ["serf", command, f"-rpc-addr={self._address}:{self._rpc_port}", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
        assert not is_checked or done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.returncode == 0


def test_random_changes_of_real_members_take_no_reload(short_dir: Path, handler: Path) -> None:
    """The same with real Serf agents, the handler and the daemon."""
    generator = random.Random(SEED)
    with running_services(short_dir) as (proxy, ports, endpoints), contextlib.ExitStack() as stack:
        settings = proxy.settings
        variables = f"SERF_HAPROXY_NODES_DIR={settings.nodes_dir} SERF_HAPROXY_WAKE_FIFO={settings.wake_fifo}"
        options = "-profile=local", f"-event-handler={EVENTS}=env {variables} {handler}"
        host, port = settings.rpc_addr
        gossip = stack.enter_context(run_serf("lb1", host, port, "role=balancer", options=options))
        nodes = [Node(number, ports) for number in range(6)]
        agents = {node: stack.enter_context(contextlib.closing(Agent(node, gossip))) for node in nodes}
        stays, *others = nodes
        stays.status, stays.options = "alive", dict.fromkeys((*HTTP, TCP), "")
        agents[stays].follow()
        stack.enter_context(running_daemon(proxy))
        wait_up(proxy, *((service, stays.name) for service in (*HTTP, TCP)))
        pid, reload_count = worker_pid(proxy), proxy.reload_count()
        clients = [stack.enter_context(Clients(*item)) for item in endpoints.items()]
        for number in range(SERF_CHANGE_COUNT):
            node = generator.choice(others)
            what = node.change(generator)
            agents[node].follow()
            failures = [failure for each in clients for failure in each.failures]
            assert failures == [], f"seed {SEED}, change {number}, {what}"

        def is_settled() -> bool:
            return list_servers(proxy) == {server.key for server in probe.decide(settings).servers}

        wait_for(is_settled, "HAProxy has the servers that Serf's members come to")
        assert (worker_pid(proxy), proxy.reload_count()) == (pid, reload_count), f"seed {SEED}"
        for each in clients:
            each.stop()
    assert [failure for each in clients for failure in each.failures] == [], f"seed {SEED}"
    assert min(each.count for each in clients) > SERF_CHANGE_COUNT, {each.service: each.count for each in clients}
