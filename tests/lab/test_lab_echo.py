"""The TCP application of the lab, as a real process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from conftest import WaitUntil, accepts, choose_port

HOST = "127.77.2.1"


@contextlib.contextmanager
def running(port: int) -> Iterator[subprocess.Popen[str]]:
    """Run the application for the length of a block."""
    environ = os.environ | {"APP_HOST": HOST, "APP_PORT": str(port), "APP_TAG": "pg1"}
    argv = [sys.executable, "-m", "serf_haproxy.lab.echo"]
    with subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(connection: socket.socket) -> bytes:
    """Return what arrives up to the end of a line."""
    said = b""
    while not said.endswith(b"\n"):
        data = connection.recv(1000)
        assert data
        said += data
    return said


def test_it_greets_and_echoes(wait_until: WaitUntil) -> None:
    """Each client gets the name and address, then what it sends; one that goes does not disturb the others."""
    port = choose_port(HOST)
    with running(port) as process:
        wait_until(lambda: accepts(HOST, port), "listening application")
        with socket.create_connection((HOST, port), 10) as one, socket.create_connection((HOST, port), 10) as other:
            assert read_line(one) == read_line(other) == f"pg1 {HOST}\n".encode()
            one.sendall(b"x" * 200_000 + b"\n")
            assert read_line(one) == b"x" * 200_000 + b"\n"
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
            one.close()
            other.sendall(b"still there\n")
            assert read_line(other) == b"still there\n"
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_a_limit_while_clients_stay(wait_until: WaitUntil, number: signal.Signals) -> None:
    """After the signal it takes no client, lets the others go on for a moment, and ends with 0."""
    port = choose_port(HOST)
    with running(port) as process:
        wait_until(lambda: accepts(HOST, port), "listening application")
        with socket.create_connection((HOST, port), 10) as client:
            read_line(client)
            started_s = time.monotonic()
            process.send_signal(number)
            wait_until(lambda: not accepts(HOST, port), "closed listener")
            client.sendall(b"last words\n")
            assert read_line(client) == b"last words\n"
            assert process.wait(15) == 0
            assert 1 < time.monotonic() - started_s < 10
            assert process.stderr
            assert process.stderr.read() == ""


def test_a_taken_port_ends_it_with_a_line() -> None:
    """It exits with 111 and one line when the port is taken."""
    with socket.create_server((HOST, 0)) as taken, running(taken.getsockname()[1]) as process:
        assert process.wait(10) == 111
        assert process.stderr
        assert process.stderr.read().startswith("echo: ")
