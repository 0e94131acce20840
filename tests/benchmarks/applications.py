"""Web applications for the benchmarks: real HTTP servers that are fast enough not to limit what is measured.

Each is a HAProxy that answers all requests itself, so that it can crash or stop gracefully. It starts in about 20 ms
and answers 10,000 requests a second, which the web application of the images cannot do.
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
    """Return the body that the application of that name answers with, about 200 bytes."""
    return " ".join([f"this is {name}."] * 14)


def accepts(address: str, port: int) -> bool:
    """Return whether a process accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False


class Application:
    """One running HTTP server."""

    def __init__(self, directory: Path, name: str, address: str, port: int) -> None:
        self.name, self.address, self.port = name, address, port
        path = directory / f"{name}-{port}.cfg"
        path.write_text(_CONFIG.format(bind=f"{address}:{port}", body=body_of(name)))
        self.process = subprocess.Popen(
            ["haproxy", "-db", "-f", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        where = "127.0.0.1" if address == "*" else address
        wait_for(lambda: accepts(where, port), f"the application {name}")

    def crash(self) -> None:
        """Kill it, whatever it is doing."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """Have it finish its requests and end; it accepts no new connection."""
        self.process.send_signal(signal.SIGUSR1)

    def end(self) -> None:
        """Wait a moment for its end, then kill it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def one_for_all(directory: Path, port: int) -> Iterator[Application]:
    """Run one application that listens on all loopback addresses."""
    application = Application(directory, "all", "*", port)
    try:
        yield application
    finally:
        application.end()
