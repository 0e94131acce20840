"""A real Redis, of Debian's package, as a TCP service behind the balancer."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.engine import need
from integration.agents import run_serf
from integration.proxy import Proxy, free_port, wait_for
from integration.test_services import list_servers, wait_up
from serf_haproxy.control.edges import find_serf
from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.serf.client import Client

pytestmark = pytest.mark.usefixtures("time_limit")


@pytest.fixture(scope="module", autouse=True)
def redis() -> None:
    """Install the program where it is missing.

    The package redis-server would start a server of the machine. Its program is one of redis-tools under another name.
    """
    need("redis-check-rdb")


@contextlib.contextmanager
def running_redis(directory: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Run a Redis without a file; yield its port and process."""
    port = free_port()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with subprocess.Popen(argv, executable="redis-check-rdb", stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: ask(port, "PING") == b"+PONG", "Redis")
            yield port, process
        finally:
            process.kill()


def ask(port: int, *commands: str) -> bytes | None:
    """Send commands on a new connection; return the last line of the answers, None without an answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            reader = connection.makefile("rb")
            for command in commands:
                connection.sendall(f"{command}\r\n".encode())
                line = reader.readline()
                line = reader.readline() if line.startswith(b"$") else line
    except OSError:
        return None
    return line.strip() or None


def test_clients_reach_redis_and_its_backup(proxy: Proxy, short_dir: Path) -> None:
    """Clients of the service reach the Redis that a member offers, and its backup after a crash, without a reload."""
    host, rpc_port = proxy.settings.rpc_addr
    bind = free_port()
    (short_dir / "services.toml").write_text(f'[redis]\nmode = "tcp"\nbind = "127.0.0.1:{bind}"\n')
    client = Client(find_serf(proxy.settings), has_hints=False, patience_s=0.0)
    with (
        contextlib.closing(client),
        running_redis(short_dir) as (port, primary),
        running_redis(short_dir) as (backup_port, _),
        run_serf("lb1", host, rpc_port, "role=balancer") as gossip,
        run_serf("db1", "127.0.0.1", free_port(), f"svc.redis={port}", options=(f"-join={gossip}",)),
        run_serf("db2", "127.0.0.1", free_port(), f"svc.redis={backup_port}:backup", options=(f"-join={gossip}",)),
    ):
        servers = {("redis", "db1"), ("redis", "db2")}
        wait_for(lambda: reconcile(proxy.settings, client.ask) and list_servers(proxy) == servers, "both servers")
        wait_up(proxy, *servers)
        reload_count = proxy.reload_count()
        assert ask(bind, "SET colour green", "GET colour") == b"green"
        assert ask(port, "GET colour") == b"green"
        assert ask(backup_port, "EXISTS colour") == b":0"
        assert {ask(bind, "GET colour") for _ in range(10)} == {b"green"}, "the backup gets no connection"
        primary.kill()
        wait_for(lambda: ask(bind, "EXISTS colour") == b":0", "the backup answers")
        assert proxy.reload_count() == reload_count
