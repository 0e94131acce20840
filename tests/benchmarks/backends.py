"""Backends for the benchmarks: real HTTP servers, quick enough that they are not what is measured.

Each is a HAProxy of its own that answers every request itself, so that it can be crashed or stopped gracefully like
any other server; it starts in some 20 ms and answers 10,000 requests a second, which the web application cannot.
"""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from integration.proxy import wait_for

_CONFIG = """\
global
    nbthread 1
defaults
    mode http
    timeout client 75s
    timeout http-keep-alive 75s
frontend application
    bind {bind}
    http-request return status 200 content-type text/plain hdr X-Backend-IP %[dst] string "{body}"
"""


def body_of(name: str) -> str:
    """Return what the backend of that name answers: some 200 bytes."""
    return " ".join([f"this is {name}."] * 14)


def accepts(address: str, port: int) -> bool:
    """Tell whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False


class Backend:
    """One running HTTP server."""

    def __init__(self, directory: Path, name: str, address: str, port: int) -> None:
        self.name, self.address, self.port = name, address, port
        path = directory / f"{name}-{port}.cfg"
        path.write_text(_CONFIG.format(bind=f"{address}:{port}", body=body_of(name)))
        self.process = subprocess.Popen(
            ["haproxy", "-db", "-f", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        where = "127.0.0.1" if address == "*" else address
        wait_for(lambda: accepts(where, port), f"the backend {name}")

    def crash(self) -> None:
        """Kill it with whatever it is doing."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """Have it finish what it is doing and end; it accepts nothing more from now on."""
        self.process.send_signal(signal.SIGUSR1)

    def end(self) -> None:
        """Make sure that it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def one_for_all(directory: Path, port: int) -> Iterator[Backend]:
    """Run one backend that is there under every loopback address."""
    backend = Backend(directory, "all", "*", port)
    try:
        yield backend
    finally:
        backend.end()
