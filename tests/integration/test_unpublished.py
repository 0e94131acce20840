"""A server that HAProxy runs and the published file lacks: whether it is a backup, only HAProxy knows."""

import contextlib
import csv
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.servers import at_once, be_silent, serving_tcp
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_services import offer, wait_up
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.serf.events import ALIVE, make_member

pytestmark = pytest.mark.usefixtures("time_limit")


def list_backups(proxy: Proxy, service: str) -> dict[str, bool]:
    """Return whether HAProxy runs each server of a service as a backup."""
    answer = ask(proxy.settings.runtime_socket, "show stat -1 4 -1", 5).removeprefix("# ")
    rows = csv.DictReader(answer.splitlines())
    return {row["svname"]: row["bck"] == "1" for row in rows if row["pxname"] == service}


@contextlib.contextmanager
def waiting_server(directory: Path, table: str, words: str, **environ: str) -> Iterator[tuple[Proxy, int]]:
    """Yield a balancer where a last connection keeps web2 in HAProxy, after the published file has lost it.

    Args:
        directory: An empty directory.
        table: Further keys of the service `pg`.
        words: What web2 said after its port.
        environ: Further settings.

    Yields:
        The balancer, and the port of web1 and web2.
    """
    bind = f"127.0.0.1:{free_port()}"
    (directory / "services.toml").write_text(f'[pg]\nmode = "tcp"\nbind = "{bind}"\n{table}')
    with (
        running_proxy(directory, SERF_HAPROXY_DRAIN_TIMEOUT_S="1", **environ) as proxy,
        serving_tcp(at_once(be_silent)) as (_, port),
        contextlib.ExitStack() as stack,
    ):
        offer(proxy, "web2", pg=f"{port}{words}")
        proxy.run_pass()
        wait_up(proxy, ("pg", "web2"))
        client = socket.create_connection(("127.0.0.1", int(bind.rpartition(":")[2])), 5)
        stack.enter_context(contextlib.closing(client))
        offer(proxy, "web1", pg=port)
        proxy.run_pass()
        wait_up(proxy, ("pg", "web1"))
        offer(proxy, "web2", status="left", pg=f"{port}{words}")

        def has_gone() -> bool:
            proxy.run_pass()
            return " web2 " not in Path(proxy.settings.config_path).read_text()

        wait_for(has_gone, "web2 is no more in the file")
        yield proxy, port


@pytest.mark.parametrize("before", ["", ":backup"])
def test_a_server_that_comes_back_while_it_ends_is_what_it_says_now(short_dir: Path, before: str) -> None:
    """It left, a last connection keeps it in HAProxy, and it comes back as a backup, or as none."""
    after = "" if before else ":backup"
    with waiting_server(short_dir, 'backups = "all"\n', before) as (proxy, port):
        assert list_backups(proxy, "pg") == {"web1": False, "web2": bool(before)}, "the connection keeps it"
        offer(proxy, "web2", pg=f"{port}{after}")

        def is_right() -> bool:
            proxy.run_pass()
            return list_backups(proxy, "pg") == {"web1": False, "web2": bool(after)}

        wait_for(is_right, lambda: str(list_backups(proxy, "pg")), 20)


def test_a_server_that_was_added_ahead_and_then_changed_is_what_it_says_now(short_dir: Path) -> None:
    """A member is given to HAProxy ahead of a pass, and is a backup before that pass comes."""
    (short_dir / "services.toml").write_text('[nodes]\nbalance = "roundrobin"\n')
    with running_proxy(short_dir) as proxy:
        reconciler = Reconciler(proxy.settings)
        offer(proxy, "web1", nodes=8001)
        assert reconciler.reconcile(lambda: None).is_in_force
        member = make_member("web2", "127.0.0.1", {"svc.nodes": "8002"})
        assert reconciler.hasten({"web2"}, lambda names: (0, dict.fromkeys(names, (ALIVE, member))))
        assert list_backups(proxy, "nodes") == {"web1": False, "web2": False}
        offer(proxy, "web2", nodes="8002:backup")
        outcome = reconciler.reconcile(lambda: None)
        assert outcome.verdict is Verdict.APPLIED
        assert list_backups(proxy, "nodes") == {"web1": False, "web2": True}


@pytest.mark.parametrize("count", [3, 60])
def test_without_the_published_file_each_server_is_what_it_says(short_dir: Path, count: int) -> None:
    """The file is gone while HAProxy runs: only those servers are made anew that are backups and should not be."""
    (short_dir / "services.toml").write_text('[nodes]\nbalance = "roundrobin"\n')
    names = [f"web{number}" for number in range(count)]
    with running_proxy(short_dir) as proxy:
        for name in names:
            offer(proxy, name, nodes=8001)
        proxy.run_pass()
        Path(proxy.settings.config_path).unlink()
        offer(proxy, "web1", nodes="8001:backup")
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert list_backups(proxy, "nodes") == {name: name == "web1" for name in names}
