"""HTTP clients that count all requests that were not answered with 200, on loopback or against test containers."""

import asyncio
import collections
import contextlib
import dataclasses
import ipaddress
import random
import re
import threading
from collections.abc import Iterator

_ANSWER_S = 20.0

# Addresses of containers that a test has started: the only targets other than loopback.
OWN_ADDRESSES: set[str] = set()


@dataclasses.dataclass
class Load:
    """Clients of one frontend, and the answers they got.

    Attributes:
        host: A loopback address or one of OWN_ADDRESSES; other targets are refused.
        port: TCP port.
        keep_alive: Keep connections open until the server closes them; otherwise one connection for each request.
        think_s: Mean pause of a client between two requests.
        work_us: The work that a request brings to the demo's web application, a pause of so many microseconds.
        limit_s: The longest time it may run; a load that is not stopped by then has failed.
        ok_count: Requests answered with 200.
        failures: For each other request, what happened instead.
        nodes: Answers by node, that is by the header X-Backend-IP.
    """

    host: str
    port: int
    keep_alive: bool = False
    think_s: float = 0.0
    work_us: int = 0
    limit_s: float = 600.0
    ok_count: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    nodes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    stopping: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def lost(self) -> list[str]:
        """The failures without partial answers of a server that died: HAProxy cannot repeat those requests."""
        return [failure for failure in self.failures if not re.match(r"IncompleteReadError.* total of \d", failure)]


@contextlib.contextmanager
def run_load(load: Load, client_count: int) -> Iterator[Load]:
    """Run clients in a thread for the length of the block; all have ended after it."""
    assert ipaddress.ip_address(load.host).is_loopback or load.host in OWN_ADDRESSES
    thread = threading.Thread(target=lambda: asyncio.run(_clients(load, client_count)))
    thread.start()
    try:
        yield load
    finally:
        load.stopping.set()
        thread.join(60)
        assert not thread.is_alive()


async def _clients(load: Load, client_count: int) -> None:
    try:
        async with asyncio.timeout(load.limit_s):
            await asyncio.gather(*(_client(load) for _ in range(client_count)))
    except TimeoutError:
        load.failures.append(f"the load has reached its limit of {load.limit_s:g} s")


async def _client(load: Load) -> None:
    """Run one client. It does not watch an idle connection, so a request may meet one that was closed meanwhile."""
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    try:
        while not load.stopping.is_set():
            try:
                async with asyncio.timeout(_ANSWER_S):
                    connection = connection or await asyncio.open_connection(load.host, load.port)
                    is_open = await _request(load, *connection)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                load.failures.append(repr(error))
                is_open = False
            if connection and not is_open:
                connection[1].close()
                connection = None
            if load.think_s:
                await asyncio.sleep(load.think_s * random.uniform(0.4, 1.6))
    finally:  # also when the time limit cancels a request
        if connection:
            connection[1].close()


async def _request(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Make one request; return whether the connection can be used again."""
    wish = b"keep-alive" if load.keep_alive else b"close"
    work = b"\r\nX-Work-Us: %d" % load.work_us if load.work_us else b""
    writer.write(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: " + wish + work + b"\r\n\r\n")
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    if " 200 " in status:
        load.ok_count += 1
        load.nodes[headers.get("x-backend-ip", "?")] += 1
    else:
        load.failures.append(status)
    return load.keep_alive and headers.get("connection", "").lower() != "close"
