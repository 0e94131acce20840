"""systemd's notifications, read from a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serf_haproxy.system.notify import take_notifier


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Yield the value of NOTIFY_SOCKET and its socket: a file, or an abstract socket."""
    name = f"@serf-haproxy-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name.replace("@", "\0", 1))
        heard.setblocking(False)
        yield name, heard


def read_all(heard: socket.socket) -> list[str]:
    """Return the datagrams that have come."""
    found = []
    while True:
        try:
            found.append(heard.recv(65536).decode())
        except BlockingIOError:
            return found


def test_each_fact_is_told_once(listener: tuple[str, socket.socket]) -> None:
    """Ready, one line of status, and stopping are told; what was told already is not told again."""
    name, heard = listener
    notifier = take_notifier({"NOTIFY_SOCKET": name})
    for _ in range(2):
        notifier.tell_ready()
        notifier.tell_status("two\nlines")
    notifier.tell_stopping()
    assert read_all(heard) == ["READY=1", "STATUS=two lines", "STOPPING=1"]


def test_a_beat_extends_the_start_and_feeds_the_watchdog(listener: tuple[str, socket.socket]) -> None:
    """Before the service is ready a beat extends its start, afterwards it feeds the watchdog."""
    name, heard = listener
    notifier = take_notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())})
    notifier.beat()
    assert read_all(heard) == ["EXTEND_TIMEOUT_USEC=180000000"]
    notifier.tell_ready()
    notifier.beat()
    notifier.beat()
    assert read_all(heard) == ["READY=1", "WATCHDOG=1"]


def test_a_watchdog_of_another_process_is_not_fed(listener: tuple[str, socket.socket]) -> None:
    """WATCHDOG_PID names the process that systemd watches."""
    name, heard = listener
    notifier = take_notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"})
    notifier.tell_ready()
    notifier.beat()
    assert read_all(heard) == ["READY=1"]


def test_children_do_not_inherit_the_variables() -> None:
    """The variables are taken out of the environment, and no other one is."""
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    take_notifier(environ)
    assert environ == {"HOME": "/"}


def test_what_was_not_taken_is_told_with_the_next_beat(tmp_path: Path) -> None:
    """While no socket is there, nothing is raised; the facts come when there is one."""
    path = tmp_path / "notify"
    notifier = take_notifier({"NOTIFY_SOCKET": str(path)})
    notifier.tell_ready()
    notifier.tell_status("well")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.setblocking(False)
        notifier.beat()
        assert read_all(heard) == ["EXTEND_TIMEOUT_USEC=180000000", "READY=1\nSTATUS=well"]


@pytest.mark.parametrize("address", ["", "relative", "/\0", f"/{'x' * 200}"])
def test_a_useless_address_harms_nothing(address: str) -> None:
    """Without a socket, or with an impossible name, all calls do nothing."""
    notifier = take_notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "many"})
    notifier.tell_ready()
    notifier.tell_status("well")
    notifier.beat()
    notifier.tell_stopping()
