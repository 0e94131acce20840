"""How often HAProxy is reloaded: at a limited rate, and with growing pauses after failures."""

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from fakes.web import answering
from integration.proxy import Proxy, running_proxy, wait_for
from integration.test_daemon import log_path, running_daemon, said
from integration.test_random_changes import Clients
from integration.test_services import offer, wait_up
from serf_haproxy.control import rendering
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.plan import How, make_plan
from serf_haproxy.serf.wake import wake

RENAME_COUNT = 8
STATIC = {"SERF_HAPROXY_BALANCE": "static-rr"}  # an algorithm for which HAProxy refuses new servers at run time


def turn(proxy: Proxy, number: int, status: str = "alive") -> None:
    """Write a member's new node file and wake the daemon, as the handler does."""
    proxy.record(f"web{number}", 8000 + number, status=status)
    wake(proxy.settings.wake_fifo)


@pytest.mark.parametrize("is_held", [False, True])
def test_reloads_are_few(short_dir: Path, is_held: bool) -> None:
    """Twenty changes that need a reload cause one reload at once and then one every two seconds, held or not."""
    environment = STATIC | {"SERF_HAPROXY_QUIET_S": "0", "SERF_HAPROXY_RELOAD_INTERVAL_S": "2"}
    with running_proxy(short_dir, **environment) as proxy, answering() as web:
        held = [f"web{number}" for number in range(100, 140)] if is_held else []
        for status in ("alive", "failed"):
            for name in held:
                proxy.record(name, web.port, status=status)
            if status == "alive" and is_held:
                proxy.run_pass()
                proxy.wait_up(*held)
        with running_daemon(proxy):
            wait_for(lambda: said(proxy, "HELD") or not is_held, "the first are held")
            before, started_s = proxy.reload_count(), time.monotonic()
            for number in range(10, 30):
                turn(proxy, number)
                time.sleep(0.1)
            wait_for(lambda: len(proxy.servers()) == 20 + 40 * is_held, "all servers")
            most = 1 + (time.monotonic() - started_s) / 2
            assert 1 <= proxy.reload_count() - before <= most


def test_a_leave_does_not_wait_for_the_next_reload(short_dir: Path) -> None:
    """Changes at run time are made at once, even right after a reload."""
    with (
        running_proxy(short_dir, **STATIC, SERF_HAPROXY_QUIET_S="0", SERF_HAPROXY_RELOAD_INTERVAL_S="60") as proxy,
        running_daemon(proxy),
    ):
        turn(proxy, 1)
        wait_for(lambda: proxy.servers() == {"web1"}, "web1 by a reload")
        turn(proxy, 2)
        turn(proxy, 1, "left")
        wait_for(lambda: proxy.servers() == set(), "web1 is removed")
        assert proxy.reload_count() == 1


@contextlib.contextmanager
def failing_reloads(short_dir: Path) -> Iterator[tuple[Proxy, Path, str]]:
    """Run a daemon whose template binds an address that is in use; yield proxy, template and address."""
    template = short_dir / "own.j2"
    shutil.copy(rendering.BUILT_IN_TEMPLATE, template)
    options = {"SERF_HAPROXY_TEMPLATE_PATH": str(template), "SERF_HAPROXY_RELOAD_INTERVAL_S": "0"}
    with (
        running_proxy(short_dir, **options) as proxy,
        socket.create_server(("127.0.0.1", 0)) as taken,
        running_daemon(proxy),
    ):
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        template.write_text(template.read_text().replace("{{ settings.stats_bind }}", bind))
        turn(proxy, 1)
        wait_for(lambda: said(proxy, "UNCONFIRMED"), "the failure is logged")
        yield proxy, template, bind


def test_a_reload_that_fails_is_tried_again_with_growing_pauses(short_dir: Path) -> None:
    """A failing reload pauses all listeners, so it is retried rarely; servers still change at run time."""
    with failing_reloads(short_dir) as (proxy, _, _bind):
        # Pauses of 1, 2, 4 and 8 s, each after a try that takes HAProxy 2 s.
        failed, started_s = proxy.reload_count(), time.monotonic()
        while time.monotonic() < started_s + 8:
            turn(proxy, 2)
            wait_for(lambda: "web2" in proxy.servers(), log_path(proxy).read_text)
            turn(proxy, 2, "left")
            wait_for(lambda: "web2" not in proxy.servers(), "web2 is removed without a reload")
        assert proxy.reload_count() - failed <= 3
        assert log_path(proxy).read_text().count("UNCONFIRMED") <= 4


def test_a_repaired_template_does_not_wait(short_dir: Path) -> None:
    """A changed template ends the pause after a failed reload."""
    with failing_reloads(short_dir) as (proxy, template, bind):
        wait_for(lambda: proxy.reload_count() >= 3, "the pause has grown", 60)
        template.write_text(template.read_text().replace(bind, proxy.settings.stats_bind).replace("5s", "7s"))
        started_s = time.monotonic()
        turn(proxy, 3)
        wait_for(lambda: "refresh 7s" in Path(proxy.settings.config_path).read_text(), "the repaired template")
        assert time.monotonic() - started_s < 4


def test_a_large_cluster_is_loaded_and_not_added_one_by_one(proxy: Proxy) -> None:
    """Where thousands of servers are new, one reload brings them; one more comes at run time."""
    count = 3300
    for number in range(count):
        proxy.record(f"web{number}", 9, f"127.1.{number // 256}.{number % 256}")
    reload_count = proxy.reload_count()
    assert make_plan(proxy.settings).how is How.RELOAD
    assert proxy.run_pass().verdict is Verdict.RELOADED
    assert proxy.reload_count() == reload_count + 1
    views = probe.read_servers(proxy.settings) or {}
    assert len(views) == count
    assert not [name for name, view in views.items() if view.status.startswith("UP")], "nothing answers there"
    proxy.record("new", 8001)
    assert make_plan(proxy.settings).how is How.RUNTIME
    assert proxy.run_pass().verdict is Verdict.APPLIED
    assert "new" in proxy.servers()


def test_a_service_gets_another_name_under_load(short_dir: Path) -> None:
    """Its servers, which were up, are up under the new name too: no request fails."""
    services, text = short_dir / "services.toml", '[nodes]\n[{}]\nroutes = ["shop.test"]\n'
    services.write_text(text.format("shop"))
    with running_proxy(short_dir) as proxy, answering() as web:
        for name in ("web1", "web2"):
            offer(proxy, name, nodes=web.port, shop=web.port, store=web.port)
        proxy.run_pass()
        wait_up(proxy, *((service, name) for service in ("nodes", "shop") for name in ("web1", "web2")))
        with Clients("shop", proxy.settings.frontend_bind) as clients:
            for number in range(RENAME_COUNT):
                count = clients.count
                wait_for(lambda count=count: clients.count > count + 20, "requests are answered")
                services.write_text(text.format("shop" if number % 2 else "store"))
                assert proxy.run_pass().verdict is Verdict.RELOADED
        assert clients.failures == []
