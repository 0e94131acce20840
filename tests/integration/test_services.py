"""Several services on one balancer, with a real HAProxy: HTTP by host and path, TCP, and changes without a reload."""

import concurrent.futures
import contextlib
import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from fakes.servers import serving_tcp
from fakes.web import Web, answering
from integration.agents import run_serf
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_daemon import running_daemon, said
from integration.test_live import held_request
from serf_haproxy.control.edges import find_serf
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.control.report import read_report
from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.policy.decision import State
from serf_haproxy.serf.client import Client
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.show.document import to_json
from serf_haproxy.show.table import format_table
from serf_haproxy.system.network import split_endpoint

pytestmark = pytest.mark.usefixtures("time_limit")

SERVICES = """\
[shop]
routes = ["shop.example.com", "/shop"]
balance = "leastconn"

[api]
routes = ["*.example.com/api"]
health_status = "200-299"
guard_hold_s = 0

[pg]
mode = "tcp"
bind = "127.0.0.1:{port}"
"""


def offer(proxy: Proxy, name: str, status: str = "alive", role: str = "", **tags: object) -> None:
    """Write the node file of a node that offers services: `shop="8001:w5"` is the tag `svc.shop=8001:w5`."""
    pairs = [f"{key if key in ('port', 'proof') else f'svc.{key}'}={value}" for key, value in tags.items()]
    pairs += [f"role={role}"] if role else []
    record(proxy.settings.nodes_dir, status, Member(name, "127.0.0.1", role, tuple(sorted(pairs))))


def list_servers(proxy: Proxy) -> set[tuple[str, str]]:
    """Return the servers of the running HAProxy by service and node."""
    running = probe.read_running(proxy.settings)
    assert running
    assert running.servers is not None
    return set(running.servers)


def wait_up(proxy: Proxy, *keys: tuple[str, str]) -> None:
    """Wait until HAProxy sees these servers up."""

    def are_up() -> bool:
        status = probe.read_status(proxy.settings)
        return all(key in status and status[key].status == "UP" for key in keys)

    wait_for(are_up, lambda: f"{keys} are up: {probe.read_status(proxy.settings)}")


def get(proxy: Proxy, host: str, path: str = "/") -> int:
    """Send a request to the frontend; return the status of the answer."""
    request = urllib.request.Request(f"http://{proxy.settings.frontend_bind}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def ask_pg(proxy: Proxy) -> bytes:
    """Connect to the TCP service; return what its server says."""
    services = {service.name: service for service in probe.read_services(proxy.settings).listed}
    host, port = split_endpoint(services["pg"].bind)
    with socket.create_connection((host, int(port)), 10) as connection:
        return connection.recv(100)


@contextlib.contextmanager
def telling(name: str) -> Iterator[int]:
    """Serve TCP: tell the name to each client; yield the port."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(name.encode())
        connection.close()

    with serving_tcp(talk) as (_, port):
        yield port


class Applications:
    """What runs behind the balancer."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.shop, self.api, self.web = (stack.enter_context(answering()) for _ in range(3))
        self.pg1, self.pg2 = (stack.enter_context(telling(name)) for name in ("pg1", "pg2"))

    def find(self, proxy: Proxy, host: str, path: str = "/") -> Web | None:
        """Send a request; return the application that got it, None when none did."""
        before = {web: web.count for web in (self.shop, self.api, self.web)}
        get(proxy, host, path)
        return next((web for web, count in before.items() if web.count > count), None)


@pytest.fixture
def applications() -> Iterator[Applications]:
    """Yield the applications."""
    with contextlib.ExitStack() as stack:
        yield Applications(stack)


@pytest.fixture
def proxy(short_dir: Path) -> Iterator[Proxy]:
    """Yield a real HAProxy, with a services file."""
    (short_dir / "services.toml").write_text(SERVICES.format(port=free_port()))
    with running_proxy(short_dir) as running:
        yield running


def serve(proxy: Proxy, applications: Applications) -> None:
    """Let a node serve in each service."""
    offer(proxy, "web1", port=applications.web.port)
    offer(proxy, "node1", shop=applications.shop.port, pg=applications.pg1)
    offer(proxy, "node2", api=applications.api.port)
    proxy.run_pass()
    wait_up(proxy, ("nodes", "web1"), ("shop", "node1"), ("api", "node2"), ("pg", "node1"))


def test_requests_reach_their_service(proxy: Proxy, applications: Applications) -> None:
    """Host and path decide, the more precise route first; all else goes to the default service, TCP to its own bind."""
    serve(proxy, applications)
    for host, path, expected in [
        ("shop.example.com", "/", applications.shop),
        ("SHOP.example.com:8080", "/anything?x=1", applications.shop),
        ("shop.example.com.", "/", applications.shop),
        ("other.test", "/shop", applications.shop),
        ("other.test", "/shop/cart", applications.shop),
        ("other.test", "/shopping", applications.web),
        ("v1.example.com", "/api/items", applications.api),
        ("v1.example.com", "/", applications.web),
        ("shop.example.com", "/api/items", applications.shop),
        ("v1.example.com", "/shop", applications.shop),
        ("example.com", "/api", applications.web),
        ("evilshop.example.com", "/", applications.web),
    ]:
        assert applications.find(proxy, host, path) is expected, (host, path)
    assert ask_pg(proxy) == b"pg1"


def test_joins_leaves_and_weights_of_any_service_take_no_reload(proxy: Proxy, applications: Applications) -> None:
    """What members do in any service changes HAProxy at run time."""
    serve(proxy, applications)
    reload_count = proxy.reload_count()
    offer(proxy, "node2", api=f"{applications.api.port}:w7:v2", pg=f"{applications.pg2}:backup")
    offer(proxy, "node3", shop=f"{applications.shop.port}:drain")
    assert proxy.run_pass().verdict is Verdict.APPLIED
    wait_up(proxy, ("pg", "node2"), ("shop", "node1"))
    assert {("api", "node2"), ("pg", "node2"), ("shop", "node3")} < list_servers(proxy)
    assert ask_pg(proxy) == b"pg1"
    offer(proxy, "node1", "left", shop=applications.shop.port, pg=applications.pg1)
    assert proxy.run_pass().verdict is Verdict.APPLIED
    assert ask_pg(proxy) == b"pg2"
    assert applications.find(proxy, "shop.example.com") is applications.shop
    assert proxy.run_pass().verdict in (Verdict.UNCHANGED, Verdict.APPLIED)
    assert ("pg", "node1") not in list_servers(proxy)
    assert f"server node2 127.0.0.1:{applications.pg2} backup id" in Path(proxy.settings.config_path).read_text()
    offer(proxy, "node2", api=applications.api.port, pg=applications.pg2)
    assert proxy.run_pass().verdict is Verdict.APPLIED
    wait_up(proxy, ("pg", "node2"))
    assert ask_pg(proxy) == b"pg2"
    assert proxy.reload_count() == reload_count


def test_a_wrong_tag_costs_one_service_of_one_node(proxy: Proxy, applications: Applications) -> None:
    """A node with a wrong tag for one service is served in its other ones, and so are all other nodes."""
    serve(proxy, applications)
    offer(proxy, "node3", shop=f"{applications.shop.port}:fast", api=applications.api.port, pg=applications.pg2)
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.APPLIED
    assert [problem.partition(":")[0] for problem in outcome.problems] == ["node shop/node3 is quarantined"]
    assert {("api", "node3"), ("pg", "node3"), ("shop", "node1")} < list_servers(proxy)
    assert ("shop", "node3") not in list_servers(proxy)
    report = read_report(proxy.settings)
    assert report.decision.entries["shop", "node3"].state is State.QUARANTINED
    assert "'fast' is no option" in format_table(report, width=0)


def test_a_service_without_a_name_is_shown_and_not_made(proxy: Proxy, applications: Applications) -> None:
    """A service that only members name is in the status, and nothing of it is in HAProxy."""
    serve(proxy, applications)
    before = Path(proxy.settings.config_path).read_text()
    offer(proxy, "evil", admin=applications.web.port, successor=9)
    assert proxy.run_pass().verdict is Verdict.UNCHANGED
    assert Path(proxy.settings.config_path).read_text() == before
    listed = {(row["service"], row["name"]): row for row in to_json(read_report(proxy.settings))["members"]}
    assert listed["admin", "evil"]["state"] == "ignored"
    assert listed["admin", "evil"]["reason"] == "the operator has named no such service"
    assert ("nodes", "evil") not in listed


def test_a_mass_loss_holds_its_own_service_alone(proxy: Proxy, applications: Applications) -> None:
    """The guard looks at each service by itself, with its own keys."""
    serve(proxy, applications)
    proxy.run_pass()
    offer(proxy, "node1", "failed", shop=applications.shop.port, pg=applications.pg1)
    offer(proxy, "node2", "failed", api=applications.api.port)
    offer(proxy, "node4", api=applications.api.port)
    proxy.run_pass()
    wait_up(proxy, ("api", "node4"))
    outcome = proxy.run_pass()
    entries = read_report(proxy.settings).decision.entries
    states = {key: entry.state for key, entry in entries.items()}
    assert states["shop", "node1"] is State.HELD
    assert states["pg", "node1"] is State.HELD
    assert states["api", "node2"] is State.GONE, "its operator wants no hold"
    assert states["nodes", "web1"] is State.SERVING
    assert [one.reason.rpartition(": ")[2] for one in outcome.conditions] == ["pg/node1 shop/node1"]


def test_a_wrong_service_is_refused_alone(proxy: Proxy, applications: Applications, short_dir: Path) -> None:
    """A service whose table becomes wrong goes on as it was, a new one that is wrong is left out, and others follow."""
    serve(proxy, applications)
    services = short_dir / "services.toml"
    text = services.read_text()
    services.write_text(
        text.replace('"leastconn"', '"fastest"').replace("*.example.com/api", "*.example.com/rest")
        + '[new]\nmode = "tcp"\nbind = "nowhere"\n'
    )
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.RELOADED
    assert [problem.removeprefix(f"{services}: ") for problem in outcome.problems] == [
        '[shop] balance = "fastest": must be one of roundrobin, leastconn, first, random, static-rr, source, uri, '
        "hash; it goes on as it was before",
        '[new] bind = "nowhere": must be address:port with an IP address, * or nothing before the colon; '
        "it is left out",
    ]
    wait_up(proxy, ("api", "node2"))
    assert applications.find(proxy, "shop.example.com") is applications.shop
    assert applications.find(proxy, "v1.example.com", "/rest/x") is applications.api
    assert applications.find(proxy, "v1.example.com", "/api/x") is applications.web
    assert "balance leastconn" in Path(proxy.settings.config_path).read_text()
    services.write_text("[shop\n")
    outcome = proxy.run_pass()
    assert outcome.verdict is Verdict.UNCHANGED
    assert outcome.problems[0].startswith(f"{services}: ")
    assert outcome.problems[0].endswith("(at line 1, column 6); all services go on as they were before")
    for act, what in ((lambda: services.write_text(""), "has no table"), (services.unlink, "is missing")):
        act()
        outcome = proxy.run_pass()
        assert outcome.verdict is Verdict.UNCHANGED
        assert outcome.problems[0].startswith(f"{services} {what}; to end all services, write [nodes] into it; ")
        assert applications.find(proxy, "shop.example.com") is applications.shop
    status = to_json(read_report(proxy.settings))
    assert status["service_faults"] == list(outcome.problems)
    assert json.dumps(status)


def test_check_tells_every_fault_and_the_services(proxy: Proxy, short_dir: Path) -> None:
    """`serf-haproxy check` prints one line for each fault of the services file, and else the services' names."""
    argv = [sys.executable, "-m", "serf_haproxy", "check"]
    good = subprocess.run(argv, env=os.environ | proxy.environment, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    assert good.stdout.endswith("services: api, nodes, pg, shop)\n")
    with (short_dir / "services.toml").open("a") as file:
        file.write('colour = "red"\n[x]\nroutes = ["SHOP.example.com"]\n')
    bad = subprocess.run(argv, env=os.environ | proxy.environment, capture_output=True, text=True, check=False)
    assert bad.returncode == 100
    assert bad.stderr.splitlines() == [
        f"serf-haproxy: {short_dir}/services.toml: [pg] colour: there is no such key; it is left out",
        f"serf-haproxy: {short_dir}/services.toml: [x] routes: shop.example.com leads to service shop; it is left out",
    ]


def test_without_the_file_nothing_differs(short_dir: Path, applications: Applications) -> None:
    """Without a services file tags `svc.NAME` change nothing; what the operator ends, ends."""
    with running_proxy(short_dir) as proxy:
        offer(proxy, "web1", port=applications.web.port, shop=applications.shop.port)
        proxy.run_pass()
        assert list_servers(proxy) == {("nodes", "web1")}
        (short_dir / "services.toml").write_text('[shop]\nroutes = ["/shop"]\n')
        assert proxy.run_pass().verdict is Verdict.RELOADED
        assert list_servers(proxy) == {("nodes", "web1"), ("shop", "web1")}
        offer(proxy, "node1", shop=applications.shop.port)
        proxy.run_pass()
        wait_up(proxy, ("shop", "web1"), ("shop", "node1"))
        (short_dir / "services.toml").write_text("[nodes]\n")
        assert proxy.run_pass().verdict is Verdict.RELOADED
        assert list_servers(proxy) == {("nodes", "web1")}, "what served in a service does not get into another one"
        (short_dir / "services.toml").unlink()
        offer(proxy, "node1", "left", shop=applications.shop.port)
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
        assert list_servers(proxy) == {("nodes", "web1")}


def test_a_real_serf_agent_offers_services(proxy: Proxy, applications: Applications) -> None:
    """Tags of a real Serf agent reach HAProxy by the roster; `serf tags -set` drains one service alone at run time."""
    host, port = proxy.settings.rpc_addr
    client = Client(find_serf(proxy.settings), has_hints=False, patience_s=0.0)
    offers = f"svc.shop={applications.shop.port}:w9", f"svc.pg={applications.pg1}"
    node_port = free_port()
    with (
        contextlib.closing(client),
        run_serf("lb1", host, port, "role=balancer") as bind,
        run_serf("node1", "127.0.0.1", node_port, *offers, options=(f"-join={bind}",)),
        run_serf("node2", "127.0.0.1", free_port(), offers[0], options=(f"-join={bind}",)),
    ):

        def run_pass() -> Outcome:
            return reconcile(proxy.settings, client.ask)

        wait_for(lambda: run_pass() and len(list_servers(proxy)) == 3, "the nodes' servers")
        wait_up(proxy, ("shop", "node1"), ("shop", "node2"), ("pg", "node1"))
        assert ask_pg(proxy) == b"pg1"
        assert applications.find(proxy, "shop.example.com") is applications.shop
        reload_count = proxy.reload_count()
        tag = f"svc.shop={applications.shop.port}:w9:drain"
        subprocess.run(["serf", "tags", f"-rpc-addr=127.0.0.1:{node_port}", "-set", tag], check=True)

        def is_drained() -> bool:
            run_pass()
            running = probe.read_running(proxy.settings)
            return bool(running and running.servers and running.servers["shop", "node1"].weight == 0)

        wait_for(is_drained, "the drain of one service")
        running = probe.read_running(proxy.settings)
        assert running
        assert running.servers is not None
        assert running.servers["pg", "node1"].weight == 1
        assert proxy.reload_count() == reload_count


def test_the_daemon_follows_the_services_file(proxy: Proxy, applications: Applications, short_dir: Path) -> None:
    """The daemon notices a changed file by itself, and SIGHUP makes a pass at once; a fault is logged once."""
    offer(proxy, "node1", shop=applications.shop.port)
    with running_daemon(proxy) as process:
        wait_up(proxy, ("shop", "node1"))
        services = short_dir / "services.toml"
        services.write_text(services.read_text().replace("/shop", "/store") + "x = 1\n")
        wait_for(lambda: "beg /store/" in Path(proxy.settings.config_path).read_text(), "the new route", 20)
        wait_for(lambda: said(proxy, "[pg] x: there is no such key"), "the fault is logged", 20)
        services.write_text(services.read_text().replace("/store", "/market"))
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "beg /market/" in Path(proxy.settings.config_path).read_text(), "another route", 20)


def test_a_proof_opens_one_service(proxy: Proxy, applications: Applications, short_dir: Path) -> None:
    """With a secret of its own, a service takes the node for which `serf-haproxy proof --service` made the tag."""
    secret = short_dir / "pg.secret"
    secret.write_text("a secret of sixteen or more characters\n")
    with (short_dir / "services.toml").open("a") as file:
        file.write(f'proof_secret_file = "{secret}"\n')
    where = "--name", "node1", "--address", "127.0.0.1", "--service", "pg", "--tag", f"svc.pg={applications.pg1}:w5"
    argv = [sys.executable, "-m", "serf_haproxy", "proof", *where]
    made = subprocess.run(argv, env=os.environ | proxy.environment, capture_output=True, text=True, check=True)
    key, _, value = made.stdout.strip().partition("=")
    assert key == "proof.pg"
    for name, reason in (("pgg", "it is not there"), ("api", "[api] x: there is no such key")):
        other = [*argv[:-4], "--service", name, "--tag", f"svc.{name}=80"]
        text = (short_dir / "services.toml").read_text()
        services = short_dir / "other.toml"
        services.write_text(text.replace("[api]\n", "[api]\nx = 1\n"))
        environ = os.environ | proxy.environment | {"SERF_HAPROXY_SERVICES_FILE": str(services)}
        refused = subprocess.run(other, env=environ, capture_output=True, text=True, check=False)
        assert refused.returncode == 100
        assert f"has no good table [{name}]" in refused.stderr
        assert reason in refused.stderr
    for name in ("node1", "node2"):
        pairs = (f"proof.pg={value}", f"svc.pg={applications.pg1}", f"svc.shop={applications.shop.port}")
        record(proxy.settings.nodes_dir, "alive", Member(name, "127.0.0.1", "", pairs))
    outcome = proxy.run_pass()
    assert list_servers(proxy) == {("pg", "node1"), ("shop", "node1"), ("shop", "node2")}
    (problem,) = outcome.problems
    reason = "its tag proof.pg was made for another name, address, addr, role, svc.pg or with another secret"
    assert problem.startswith(f"node pg/node2 is quarantined: {reason}")
    wait_up(proxy, ("pg", "node1"))
    assert ask_pg(proxy) == b"pg1"


def test_requests_wait_for_a_server_of_their_service(short_dir: Path, applications: Applications) -> None:
    """With `SERF_HAPROXY_NO_SERVER_WAIT_S` a request waits for a server of the service to which it belongs."""
    (short_dir / "services.toml").write_text('[shop]\nroutes = ["/shop"]\n')
    with running_proxy(short_dir, SERF_HAPROXY_NO_SERVER_WAIT_S="20") as proxy:
        offer(proxy, "web1", port=applications.web.port)
        proxy.run_pass()
        wait_up(proxy, ("nodes", "web1"))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(get, proxy, "x.test", "/shop/1")
            assert get(proxy, "x.test") == 200
            assert not waiting.done()
            offer(proxy, "node1", shop=applications.shop.port)
            assert proxy.run_pass().verdict is Verdict.APPLIED
            assert waiting.result(20) == 200
        assert applications.shop.count == 1


def test_random_changes_under_load_take_no_reload(proxy: Proxy, applications: Applications) -> None:
    """Joins, leaves, drains and weights in four services: no request of any of them fails, and nothing is reloaded."""
    serve(proxy, applications)
    ports = {"shop": applications.shop.port, "api": applications.api.port, "pg": applications.pg2}
    stopping, failures, counts = threading.Event(), [], dict.fromkeys(("shop", "api", "web", "pg"), 0)

    def ask(name: str, host: str, path: str) -> None:
        while not stopping.wait(0.005):
            try:
                is_good = ask_pg(proxy) in (b"pg1", b"pg2") if name == "pg" else get(proxy, host, path) == 200
            except OSError as error:
                failures.append(f"{name}: {error!r}")
                continue
            counts[name] += 1
            if not is_good:
                failures.append(name)

    def change(generator: random.Random, name: str) -> None:
        options = ("", "", ":w7", ":w200:v2", ":drain")
        chosen = generator.sample(sorted(ports), generator.randint(1, 3))
        offers = {service: f"{ports[service]}{generator.choice(options)}" for service in chosen}
        more = {"port": applications.web.port} if generator.random() < 0.5 else {}
        offer(proxy, name, generator.choice(["alive", "alive", "alive", "left"]), **offers, **more)

    seed = random.randrange(2**32)
    generator, reload_count = random.Random(seed), proxy.reload_count()
    targets = [
        ("shop", "shop.example.com", "/"),
        ("api", "v1.example.com", "/api"),
        ("web", "x.test", "/"),
        ("pg", "", ""),
    ]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        clients = [pool.submit(ask, *target) for target in targets]
        try:
            for _ in range(30):
                change(generator, f"any{generator.randint(1, 4)}")
                assert proxy.run_pass().verdict in (Verdict.APPLIED, Verdict.UNCHANGED)
        finally:
            stopping.set()
        for client in clients:
            client.result()
    assert failures == [], f"seed {seed}"
    assert proxy.reload_count() == reload_count
    assert min(counts.values()) > 20, counts


def test_a_missing_secret_of_a_service_changes_nothing(
    proxy: Proxy, applications: Applications, short_dir: Path
) -> None:
    """Without the file of a service's secrets a pass ends with its path, and what runs stays."""
    serve(proxy, applications)
    secret = short_dir / "pg.secret"
    secret.write_text("correct horse battery staple\n")
    with (short_dir / "services.toml").open("a") as file:
        file.write(f'proof_secret_file = "{secret}"\n')
    assert proxy.run_pass().is_in_force
    secret.unlink()
    before = Path(proxy.settings.config_path).read_text()
    offer(proxy, "node1", "left", shop=applications.shop.port, pg=applications.pg1)
    with pytest.raises(SystemFault, match=r"pg.secret: there is no .* proof_secret_file of service pg"):
        proxy.run_pass()
    assert Path(proxy.settings.config_path).read_text() == before
    secret.write_text("correct horse battery staple\n")
    assert ask_pg(proxy) == b"pg1"


@pytest.mark.parametrize("is_short", [True, False], ids=["short", "long"])
def test_a_server_with_a_request_becomes_a_backup(short_dir: Path, is_short: bool) -> None:
    """HAProxy makes such a server anew, which waits for its request: a short one costs no reload, a long one does."""
    (short_dir / "services.toml").write_text("")
    with running_proxy(short_dir) as proxy, held_request(proxy) as held:
        tags = (f"svc.nodes={held.port}:backup",)
        record(proxy.settings.nodes_dir, "alive", Member("web1", held.host, "", tags))
        timer = threading.Timer(0.2, held.is_released.set)
        if is_short:
            timer.start()
        assert proxy.run_pass().verdict is (Verdict.APPLIED if is_short else Verdict.RELOADED)
        rows = csv.DictReader(ask(proxy.settings.runtime_socket, "show stat nodes 4 -1", 5)[2:].splitlines())
        assert {row["svname"]: row["bck"] for row in rows} == {"web0": "0", "web1": "1"}
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
        held.is_released.set()
        wait_for(lambda: held.answers == [200], "the request is answered")
        assert proxy.reload_count() == (0 if is_short else 1)


def test_the_only_server_becomes_a_backup_by_a_reload(short_dir: Path) -> None:
    """While no other server of the service is up, one with a request is not taken out to be made anew."""
    (short_dir / "services.toml").write_text("")
    with running_proxy(short_dir) as proxy, held_request(proxy) as held:
        proxy.record("web0", 9, status="left")
        proxy.run_pass(drain_timeout_s=0.0)
        tags = (f"svc.nodes={held.port}:backup",)
        record(proxy.settings.nodes_dir, "alive", Member("web1", held.host, "", tags))
        assert proxy.run_pass().verdict is Verdict.RELOADED
        assert probe.read_status(proxy.settings)["nodes", "web1"].status.startswith("UP")
