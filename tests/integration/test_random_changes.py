"""Random changes in five services under load: no reload, no failed request.

RANDOM_CHANGES=500 makes 500 changes, RANDOM_SEED=N repeats them.
"""

import contextlib
import csv
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from conftest import accepts
from integration.agents import run_serf, start_serf
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.sticky import COOKIE, Connection, everywhere, worker_pid
from integration.test_daemon import running_daemon
from integration.test_services import wait_up
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.report import read_report
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.services import Key
from serf_haproxy.show.table import format_table

CHANGE_COUNT = int(os.environ.get("RANDOM_CHANGES", "100"))
SERF_CHANGE_COUNT = int(os.environ.get("RANDOM_CHANGES", "25"))
EVENTS = "member-join,member-leave,member-failed,member-update,member-reap"
SEED = int(os.environ.get("RANDOM_SEED") or random.randrange(2**32))
Place = tuple[str, int, bool]  # of a server: endpoint, weight, whether it is a backup
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

    @property
    def told(self) -> dict[str, str]:
        """Its tags as Serf lists them."""
        return dict(tag.split("=", 1) for tag in self.tags)

    @property
    def servers(self) -> dict[Key, Place]:
        """The servers that HAProxy should have for it: each with endpoint, weight, and whether it is a backup."""
        endpoint = f"{self.address}:{self.ports[self.place // 2]}"
        offered = self.options.items() if self.status == "alive" else ()
        return {(service, self.name): (endpoint, _weigh(said), said == ":backup") for service, said in offered}

    def tell(self, proxy: Proxy) -> None:
        """Write what Serf would say."""
        record(proxy.settings.nodes_dir, self.status, Member(self.name, self.address, "", self.tags))


def _weigh(option: str) -> int:
    return int(option[2:]) if option.startswith(":w") else 0 if option == ":drain" else 1


def expect(nodes: Iterable[Node]) -> dict[Key, Place]:
    """Return the servers that follow from what the test itself did."""
    return {key: place for node in nodes for key, place in node.servers.items()}


def list_places(proxy: Proxy) -> dict[Key, Place]:
    """Return the servers of the running HAProxy, as HAProxy itself lists them."""
    rows = csv.DictReader(ask(proxy.settings.runtime_socket, "show stat", 5).removeprefix("# ").splitlines())
    return {
        (row["pxname"], row["svname"]): (row["addr"], int(row["weight"]), row["bck"] == "1")
        for row in rows
        if row["type"] == "2" and row["pxname"] in (*HTTP, TCP)
    }


def explain(proxy: Proxy, nodes: Iterable[Node]) -> str:
    """Return in which servers HAProxy differs from what the test did, and what the product says of all."""
    wanted, found = expect(nodes), list_places(proxy)
    differing = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    lines = [f"{key}: should be {wanted.get(key)}, is {found.get(key)}" for key in differing]
    lines += [file.read_text().strip() for file in sorted(Path(proxy.settings.nodes_dir).iterdir())]
    return "\n".join([f"seed {SEED}", *lines, format_table(read_report(proxy.settings))])


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
    # Several of a few nodes that give up a service within a minute are a mass loss, and would be held for a day.
    environ["SERF_HAPROXY_GUARD_HOLD_S"] = "0"
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
        every = [stays, *nodes]

        def is_settled() -> bool:
            proxy.run_pass()
            return list_places(proxy) == expect(every)

        wait_for(is_settled, lambda: explain(proxy, every))
        assert (worker_pid(proxy), proxy.reload_count()) == (pid, reload_count), f"seed {SEED}"
        for each in clients:
            each.stop()
    assert [failure for each in clients for failure in each.failures] == [], f"seed {SEED}"
    assert min(each.count for each in clients) > CHANGE_COUNT, {each.service: each.count for each in clients}


class Agent:
    """The Serf agent of a node, which starts, leaves and gets other tags as the node changes.

    It is supervised as s6 does it: Serf ends an agent that has moved while others still believe its name to be at the
    old address, and then it is started again.

    Args:
        node: The node.
        join: The gossip address of another member.
    """

    def __init__(self, node: Node, join: str) -> None:
        self._node, self._join = node, join
        self._process: subprocess.Popen[bytes] | None = None
        self._address, self._rpc_port, self._keys = "", 0, frozenset[str]()

    def follow(self) -> None:
        """Let Serf say what the node is now."""
        node = self._node
        if self._process and (node.status == "left" or self._address != node.address):
            self._insist("leave")
            self.close()
        if node.status == "alive" and not self.keep_running():
            words = [word for tag in node.tags for word in ("-set", tag)]
            keys = frozenset(tag.partition("=")[0] for tag in node.tags)
            words += [word for key in self._keys - keys for word in ("-delete", key)]
            self._keys = keys
            self._insist("tags", *words)

    def keep_running(self) -> bool:
        """Start the agent of a living node if it does not run; return whether it was started."""
        node = self._node
        if node.status != "alive" or (self._process and self._process.poll() is None):
            return False
        self._address, self._rpc_port = node.address, free_port(node.address)
        self._keys = frozenset(tag.partition("=")[0] for tag in node.tags)
        options = "-profile=local", f"-join={self._join}"
        self._process, _ = start_serf(node.name, self._address, self._rpc_port, *node.tags, options=options)
        wait_for(lambda: self._has_ended or accepts(self._address, self._rpc_port), f"the RPC of {node.name}")
        return True

    def close(self) -> None:
        """End the Serf agent."""
        if self._process:
            self._process.kill()
            self._process.wait(10)
        self._process = None

    @property
    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _insist(self, command: str, *words: str) -> None:
        """Give a command, again where Serf does not take it: just after its start, or with too much to tell at once.

        An agent that has ended takes none.
        """
        argv = ["serf", command, f"-rpc-addr={self._address}:{self._rpc_port}", *words]
        said = ""
        for pause_s in (0.2, 0.5, 1.0, 3.0, 0.0):
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
            if not done.returncode or not accepts(self._address, self._rpc_port):
                return
            said = done.stdout + done.stderr
            time.sleep(pause_s)
        raise AssertionError(f"{self._node.name} refuses {command} {words}: {said}")


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

        def list_heard() -> dict[str, tuple[str, str, dict[str, str]]]:
            """Return status, address and tags of the members, as the balancer's Serf has them."""
            argv = ["serf", "members", "-format=json", f"-rpc-addr={host}:{port}"]
            listed = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout)
            return {one["name"]: (one["status"], one["addr"].split(":")[0], one["tags"]) for one in listed["members"]}

        def is_settled() -> bool:
            started = [agent.keep_running() for agent in agents.values()]
            if not any(started) and list_places(proxy) == expect(nodes):
                return True
            heard = list_heard()
            for node, agent in agents.items():  # on a busy machine, Serf gives up telling tags
                if node.status == "alive" and heard.get(node.name) != ("alive", node.address, node.told):
                    agent.follow()
            return False

        wait_for(is_settled, lambda: f"{explain(proxy, nodes)}\nSerf says: {list_heard()}", 150)
        assert (worker_pid(proxy), proxy.reload_count()) == (pid, reload_count), f"seed {SEED}"
        for each in clients:
            each.stop()
    assert [failure for each in clients for failure in each.failures] == [], f"seed {SEED}"
    assert min(each.count for each in clients) > SERF_CHANGE_COUNT, {each.service: each.count for each in clients}
