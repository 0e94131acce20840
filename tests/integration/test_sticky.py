"""Sticky clients with a real HAProxy: cookies that need no reload, two balancers, and draining."""

import collections
import contextlib
import os
import random
from pathlib import Path

import pytest

import probe
from integration.proxy import Proxy, running_proxy, wait_for
from integration.sticky import COOKIE, Connection, Crowd, everywhere, worker_pid
from integration.test_services import wait_up
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy.socket import ask

CLIENT_COUNT = int(os.environ.get("STICKY_CLIENTS", "2000"))  # 10,000 on demand, which takes minutes
SECRET = "a secret of sixteen or more characters"


@pytest.fixture
def secret(short_dir: Path) -> dict[str, str]:
    """Return the settings for cookies that are made with a secret, and write its file."""
    path = short_dir / "cookie.secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return {"SERF_HAPROXY_COOKIE": COOKIE, "SERF_HAPROXY_COOKIE_SECRET_FILE": str(path)}


def address(number: int) -> str:
    """Return the address of a node."""
    return f"127.0.9.{number}"


def join(proxy: Proxy, port: int, *numbers: int) -> None:
    """Let nodes join in one pass at run time, and wait until they are up."""
    for number in numbers:
        proxy.record(f"web{number}", port, address(number))
    assert proxy.run_pass().verdict is Verdict.APPLIED
    proxy.wait_up(*(f"web{number}" for number in numbers))


def test_clients_stay_through_joins_leaves_reloads_and_balancers(short_dir: Path, secret: dict[str, str]) -> None:
    """No client moves whose server is there: through 20 joins and leaves, a reload, and at another balancer."""
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    (short_dir / "two").mkdir()
    with (
        everywhere(short_dir) as port,
        running_proxy(short_dir, **secret, SERF_HAPROXY_DRAIN_TIMEOUT_S="0") as proxy,
        running_proxy(short_dir / "two", **secret) as other,
    ):
        there = {1, 2, 3, 4, 5}
        pid = worker_pid(proxy)
        join(proxy, port, *there)
        crowd = Crowd(CLIENT_COUNT)
        assert len(crowd.visit(proxy)) == CLIENT_COUNT
        assert crowd.servers == set(map(address, there))
        for number in range(6, 26):
            if number % 2:
                gone = generator.choice(sorted(there))
                there.remove(gone)
                leavers = crowd.list_clients(address(gone))
                proxy.record(f"web{gone}", port, address(gone), status="left")
                assert proxy.run_pass().verdict is Verdict.APPLIED
            else:
                there.add(number)
                leavers = []
                join(proxy, port, number)
            assert crowd.visit(proxy) == leavers, f"seed {seed}"
        assert worker_pid(proxy) == pid, "no reload"
        assert proxy.reload_count() == 0
        crowd.visit(proxy)
        outcome = proxy.run_pass(balance="leastconn")
        assert outcome.verdict is Verdict.RELOADED
        assert crowd.visit(proxy) == [], "after a reload"
        order = sorted(there, reverse=True)
        generator.shuffle(order)
        for number in order:
            join(other, port, number)
        assert other.reload_count() == 0
        assert crowd.visit(other) == [], "at another balancer"
        assert crowd.servers <= set(map(address, there))


@pytest.mark.usefixtures("time_limit")
def test_the_secret_stays_in_its_file(short_dir: Path, secret: dict[str, str]) -> None:
    """Only keys made from the secret get into HAProxy's configuration, another one for each service."""
    (short_dir / "services.toml").write_text('[shop]\nroutes = ["/shop"]\ncookie = "SHOP"\n')
    with running_proxy(short_dir, **secret) as proxy:
        proxy.record("web1", 8001)
        proxy.run_pass()
        words = [line.split() for line in (probe.read_live(proxy.settings) or "").splitlines()]
        keys = [line[1] for line in words if line[:1] == ["dynamic-cookie-key"]]
        assert len(set(keys)) == 2
        everything = [path.read_bytes() for path in short_dir.rglob("*") if path.is_file() and path.suffix != ".secret"]
        assert everything
        assert not any(SECRET.encode() in text for text in everything)
        shown = ask(proxy.settings.runtime_socket, "show info; show servers state; show stat", 5)
        assert not any(key in shown for key in keys)
        assert keys[0] not in repr(probe.preview(proxy.settings).snapshot.services)


@pytest.mark.usefixtures("time_limit")
@pytest.mark.parametrize("text", [None, "", "too short\n"])
def test_without_the_secret_nothing_changes(short_dir: Path, secret: dict[str, str], text: str | None) -> None:
    """A file that is missing or wrong is one clear line; HAProxy keeps what it has, and with it the clients."""
    path = Path(secret["SERF_HAPROXY_COOKIE_SECRET_FILE"])
    with running_proxy(short_dir, **secret) as proxy:
        proxy.record("web1", 8001)
        proxy.run_pass()
        before = probe.read_live(proxy.settings)
        path.unlink() if text is None else path.write_text(text)
        proxy.record("web2", 8002)
        with pytest.raises(SystemFault, match="or change SERF_HAPROXY_COOKIE_SECRET_FILE"):
            proxy.run_pass()
        assert probe.read_live(proxy.settings) == before
        path.write_text(f"{SECRET}\nan older secret is no key of cookies\n")
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert proxy.servers() == {"web1", "web2"}


@pytest.mark.usefixtures("time_limit")
def test_a_drained_server_keeps_its_clients(short_dir: Path, secret: dict[str, str]) -> None:
    """A server that is drained, or has left, keeps its clients and gets no new ones, in each service by itself."""
    (short_dir / "services.toml").write_text(
        f'[shop]\nroutes = ["shop.test"]\ncookie = "{COOKIE}"\ndrain_timeout_s = 1.5\n'
    )
    with everywhere(short_dir) as port, running_proxy(short_dir, **secret) as proxy:

        def offer(number: int, option: str = "", status: str = "alive") -> None:
            proxy.record(f"web{number}", port, address(number), status, **{"svc.shop": f"{port}{option}"})

        for number in (1, 2, 3):
            offer(number)
        proxy.run_pass()
        proxy.wait_up("web1", "web2", "web3")
        wait_up(proxy, ("shop", "web1"), ("shop", "web2"), ("shop", "web3"))
        web, shop = Crowd(60), Crowd(60, "shop.test")
        for crowd in (web, shop):
            crowd.visit(proxy)
            assert address(1) in crowd.servers
        offer(1, ":drain")
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert (web.visit(proxy), shop.visit(proxy)) == ([], []), "all clients are where they were"
        for crowd, expected in ((Crowd(60), True), (Crowd(60, "shop.test"), False)):
            crowd.visit(proxy)
            assert (address(1) in crowd.servers) is expected, "new clients only in the service that is not drained"
        offer(1, status="left")
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert (web.visit(proxy), shop.visit(proxy)) == ([], []), "a leave is a drain"
        fresh = Crowd(60)
        fresh.visit(proxy)
        assert address(1) not in fresh.servers
        clients = shop.list_clients(address(1))

        def is_gone() -> bool:
            running = proxy.run_pass() and probe.read_running(proxy.settings)
            return bool(running and running.servers is not None and ("shop", "web1") not in running.servers)

        wait_for(is_gone, "the end of the drain in the shop", 10)
        assert shop.visit(proxy) == clients
        assert web.visit(proxy) == [], "the other service has another limit"
        assert proxy.reload_count() == 0


def ask_all(proxy: Proxy, paths: list[str], sources: list[str]) -> dict[str, str]:
    """Return the server of each path in the default service, and of each source address in the service `source`."""
    found = {}
    with contextlib.closing(Connection(proxy.settings.frontend_bind)) as connection:
        for path in paths:
            found[path] = connection.get(path=path).server
    for source in sources:
        with contextlib.closing(Connection(proxy.settings.frontend_bind, source)) as connection:
            found[source] = connection.get(host="source.test").server
    return found


@pytest.mark.usefixtures("time_limit")
def test_balancers_agree_on_every_key(short_dir: Path) -> None:
    """With `source` and `uri`, joins take no reload; two balancers agree, and a leave moves the leaver's keys alone."""
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    paths = [f"/{generator.randrange(2**40):x}" for _ in range(1000)]
    sources = [f"127.{generator.randint(1, 254)}.{generator.randint(0, 255)}.{host}" for host in range(1, 201)]
    sources = sorted(set(sources))
    (short_dir / "two").mkdir()
    for directory in (short_dir, short_dir / "two"):
        (directory / "services.toml").write_text('[source]\nroutes = ["source.test"]\nbalance = "source"\n')
    environ = {"SERF_HAPROXY_BALANCE": "uri", "SERF_HAPROXY_DRAIN_TIMEOUT_S": "0"}
    with (
        everywhere(short_dir) as port,
        running_proxy(short_dir, **environ) as proxy,
        running_proxy(short_dir / "two", **environ) as other,
    ):

        def offer(balancer: Proxy, number: int, status: str = "alive") -> None:
            balancer.record(f"web{number}", port, address(number), status, **{"svc.source": port})
            assert balancer.run_pass().verdict is Verdict.APPLIED

        order = list(range(1, 9))
        for balancer in (proxy, other):
            balancer.run_pass()  # the services file
            before = balancer.reload_count()
            for number in order:
                offer(balancer, number)
            generator.shuffle(order)
        for gone in (7, 8):
            offer(proxy, gone, "left")
            offer(other, 15 - gone, "left")
        for balancer in (proxy, other):
            wait_up(balancer, *((service, f"web{number}") for service in ("nodes", "source") for number in range(1, 7)))
        found = ask_all(proxy, paths, sources)
        assert ask_all(other, paths, sources) == found, f"seed {seed}"
        for key in (paths, sources):
            shares = collections.Counter(found[one] for one in key)
            assert shares.keys() == {address(number) for number in range(1, 7)}
        offer(proxy, 3, "left")
        offer(other, 3, "left")
        after = ask_all(proxy, paths, sources)
        assert ask_all(other, paths, sources) == after, f"seed {seed}"
        assert {key for key in found if found[key] != after[key]} == {
            key for key in found if found[key] == address(3)
        }, f"seed {seed}: only the keys of the server that left have moved"
        assert [balancer.reload_count() for balancer in (proxy, other)] == [before, before]
        proxy.run_pass(maxconn=1000)
        assert proxy.reload_count() == before + 1
        assert ask_all(proxy, paths, sources) == after, "after a reload"
