"""Health checks that speak the servers' protocol, with a real HAProxy, for servers that join at run time.

Redis is the real one, from Debian. For the other protocols a small server speaks the first exchange.
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import probe
from fakes.servers import at_once, serving_tcp
from integration.debian import unpack
from integration.proxy import Proxy, free_port, running_proxy, wait_for
from integration.test_services import offer, wait_up
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.system.network import split_endpoint

pytestmark = pytest.mark.usefixtures("time_limit")

PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblua5.1-0", "liblzf1", "libhiredis0.14")
GREETING = (
    b"\x0a5.5.5-10.11.6-MariaDB\0" + b"\x01\0\0\0" + b"saltsalt\0" + b"\xfe\xf7\x2d\x02\0" + b"\0" * 15 + b"s" * 13
)
OK = b"\x07\0\0\x02\0\0\0\x02\0\0\0"


@contextlib.contextmanager
def balancing(directory: Path, health: str) -> Iterator[Proxy]:
    """Run HAProxy with a TCP service that has no server yet."""
    text = f'[db]\nmode = "tcp"\nbind = "127.0.0.1:{free_port()}"\nhealth = "{health}"\n'
    (directory / "services.toml").write_text(text)
    with running_proxy(directory) as proxy:
        yield proxy
        assert proxy.reload_count() == 0, "a server that joined took a reload"


def find_status(proxy: Proxy, name: str) -> str:
    """Return what HAProxy says of a server, and of its last health check."""
    row = probe.read_status(proxy.settings).get(("db", name))
    return f"{row.status} {row.explain_check()}" if row else "absent"


def join(proxy: Proxy, name: str, port: int) -> None:
    """Let a node join the service."""
    offer(proxy, name, db=port)
    assert proxy.run_pass().verdict is Verdict.APPLIED


def speak_pgsql(connection: socket.socket) -> None:
    """Ask for a password, as PostgreSQL does after a startup message with a user."""
    message = connection.recv(1024)
    assert b"user\0haproxy\0" in message
    connection.sendall(b"R\0\0\0\x0c\0\0\0\x05salt")


def speak_mysql(connection: socket.socket) -> None:
    """Greet, and accept a login without a password."""
    connection.sendall(len(GREETING).to_bytes(3, "little") + b"\0" + GREETING)
    assert b"haproxy\0" in connection.recv(1024)
    connection.sendall(OK)


def speak_smtp(connection: socket.socket) -> None:
    """Greet, and answer EHLO and QUIT."""
    connection.sendall(b"220 mail.example ESMTP\r\n")
    assert connection.recv(1024).startswith(b"EHLO localhost")
    connection.sendall(b"250-mail.example\r\n250 SIZE\r\n")
    connection.recv(1024)
    connection.sendall(b"221 bye\r\n")


@pytest.mark.parametrize(("health", "speak"), [("pgsql", speak_pgsql), ("mysql", speak_mysql), ("smtp", speak_smtp)])
def test_a_server_is_used_while_it_speaks_its_protocol(
    short_dir: Path, health: str, speak: Callable[[socket.socket], None]
) -> None:
    """A server that answers as its protocol says comes up; one that only accepts connections does not."""

    def talk(connection: socket.socket) -> None:
        with contextlib.closing(connection), contextlib.suppress(OSError):
            speak(connection)

    def be_something_else(connection: socket.socket) -> None:
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.recv(1024)

    with (
        serving_tcp(at_once(talk)) as (_, port),
        serving_tcp(at_once(be_something_else)) as (_, other),
        balancing(short_dir, health) as proxy,
    ):
        join(proxy, "db1", port)
        wait_up(proxy, ("db", "db1"))
        assert "L7OK" in find_status(proxy, "db1")
        join(proxy, "db2", other)
        wait_for(lambda: "L7" in find_status(proxy, "db2"), lambda: find_status(proxy, "db2"), 20)
        assert find_status(proxy, "db2").startswith("DOWN")
        assert find_status(proxy, "db1").startswith("UP")


@pytest.fixture(scope="module")
def redis_program(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """Return Debian's redis-server and its environment; where it is not installed, the packages are only unpacked."""
    if program := shutil.which("redis-server"):
        return program, dict(os.environ)
    directory = tmp_path_factory.mktemp("redis")
    unpack(directory, *PACKAGES)
    libraries = ":".join(str(path) for path in directory.glob("usr/lib/*-linux-gnu"))
    return str(directory / "usr/bin/redis-server"), os.environ | {"LD_LIBRARY_PATH": libraries}


@contextlib.contextmanager
def running_redis(program: tuple[str, dict[str, str]], directory: Path, port: int) -> Iterator[None]:
    """Run Redis on loopback."""
    path, environment = program
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory)]
    process = subprocess.Popen([path, *words], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_a_real_redis_is_served(short_dir: Path, redis_program: tuple[str, dict[str, str]]) -> None:
    """Clients reach the Redis that answers PING; when it stops, those that follow reach the other one."""
    with balancing(short_dir, "redis") as proxy, contextlib.ExitStack() as stack:
        ports = {name: free_port() for name in ("db1", "db2")}
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(running_redis(redis_program, short_dir, ports["db1"]))
        stack.enter_context(running_redis(redis_program, short_dir, ports["db2"]))
        for name, port in ports.items():
            join(proxy, name, port)
        wait_up(proxy, ("db", "db1"), ("db", "db2"))
        assert "L7OK" in find_status(proxy, "db1")
        first.close()
        wait_for(lambda: find_status(proxy, "db1").startswith("DOWN"), lambda: find_status(proxy, "db1"), 20)
        services = {service.name: service for service in probe.read_services(proxy.settings).listed}
        host, port_text = split_endpoint(services["db"].bind)
        for number in range(4):
            with socket.create_connection((host, int(port_text)), 10) as connection:
                connection.sendall(b"INCR visits\r\n")
                assert connection.recv(100) == b":%d\r\n" % (number + 1)
