"""Real web applications of which each can be slow or broken, and clients that send requests at a fixed mean rate.

All of them run in one thread. A request begins when it is due, whether or not earlier ones were answered, and its
latency counts from that moment.
"""

import asyncio
import contextlib
import dataclasses
import math
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from integration.proxy import free_port

_ANSWER_S = 30.0
_WORKER_COUNT = 4


@dataclasses.dataclass
class Application:
    """A web application with a few workers; further requests wait.

    Attributes:
        name: Its name, which each answer carries.
        service_s: Mean time that a worker needs for a request; exponential.
        times: How many times slower it is than that.
        status: What it answers; one of 500 or more comes at once.
        held_s: How long it waits between the head and the body of an answer.
        port: Its port on 127.0.0.1.
    """

    name: str
    service_s: float
    times: float = 1.0
    status: int = 200
    held_s: float = 0.0
    port: int = dataclasses.field(default_factory=free_port)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(_WORKER_COUNT)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection; health checks use HEAD, and are answered at once."""
        with ending(writer), contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                is_check = head.startswith(b"HEAD")
                if self.status < 500 and not is_check:
                    async with self._free:
                        await asyncio.sleep(random.expovariate(1 / (self.service_s * self.times)))
                status = 200 if is_check else self.status
                text = f"HTTP/1.1 {status} -\r\nX-Node: {self.name}\r\nContent-Length: 2\r\n\r\n"
                writer.write(text.encode())
                if not is_check:
                    await writer.drain()
                    await asyncio.sleep(self.held_s)
                    writer.write(b"ok")
                await writer.drain()
                if b"connection: close" in head.lower():  # a client without HAProxy's HTTP between
                    return


@contextlib.contextmanager
def ending(writer: asyncio.StreamWriter) -> Iterator[None]:
    """End a connection with the block, whatever the other end has not read yet."""
    try:
        yield
    finally:
        writer.transport.abort()


class Answer(NamedTuple):
    """What became of a request.

    Attributes:
        port: Where it was sent.
        due_s: When it was due, on the monotonic clock.
        took_s: How long after that its answer was complete.
        status: The answer's status, 0 for none.
        node: Who answered.
    """

    port: int
    due_s: float
    took_s: float
    status: int
    node: str


class Stage:
    """Applications and clients.

    Attributes:
        applications: The applications, by name.
        answers: What became of each request so far.
        lags_s: How late each request was sent: where the machine is too busy for the clients, latencies say nothing.
    """

    def __init__(self, names: Iterable[str], service_s: float) -> None:
        self.applications = {name: Application(name, service_s) for name in names}
        self.answers: list[Answer] = []
        self.lags_s: list[float] = []
        self._rates: dict[int, float] = {}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._is_open = threading.Event()

    def __getitem__(self, name: str) -> Application:
        return self.applications[name]

    def load(self, port: int, rate: float) -> None:
        """Send so many requests a second to a port of loopback; 0 ends that."""
        self._rates[port] = rate
        if rate:
            asyncio.run_coroutine_threadsafe(self._send(port, rate), self._loop)

    def select(self, port: int, begin_s: float, end_s: float = math.inf) -> list[Answer]:
        """Return the answers to requests to a port that were due in a time."""
        return [one for one in list(self.answers) if one.port == port and begin_s <= one.due_s < end_s]

    def listen(self, name: str, port: int) -> None:
        """Let an application listen on a further port of loopback."""
        serve = asyncio.start_server(self.applications[name].serve, "127.0.0.1", port)
        server = asyncio.run_coroutine_threadsafe(serve, self._loop).result(10)
        self._servers.append(server)

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until the end of the stage."""
        async with contextlib.AsyncExitStack() as stack:
            for one in self.applications.values():
                await stack.enter_async_context(await asyncio.start_server(one.serve, "127.0.0.1", one.port))
            self._is_open.set()
            await stopping.wait()
            for server in self._servers:
                server.close()

    async def _send(self, port: int, rate: float) -> None:
        due_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while self._rates.get(port) == rate:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                self.lags_s.append(time.monotonic() - due_s)
                tasks.create_task(self._request(port, due_s))
                due_s += random.expovariate(rate)

    async def _request(self, port: int, due_s: float) -> None:
        status, node = 0, ""
        with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError, IndexError):
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with ending(writer):  # also when the stage ends before the answer
                    writer.write(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
                    head, _, _ = (await reader.read()).partition(b"\r\n\r\n")
            first, *lines = head.decode().lower().split("\r\n")
            status = int(first.split()[1])
            node = next((line[8:] for line in lines if line.startswith("x-node: ")), "")
        self.answers.append(Answer(port, due_s, time.monotonic() - due_s, status, node))


@contextlib.contextmanager
def running_stage(names: Iterable[str], service_s: float) -> Iterator[Stage]:
    """Run applications for the length of the block; all clients have ended after it."""
    stage = Stage(names, service_s)
    stopping = asyncio.Event()

    def work() -> None:
        asyncio.set_event_loop(stage._loop)
        stage._loop.run_until_complete(stage.run(stopping))
        # A connection that was accepted at the last moment has no task yet.
        while tasks := asyncio.all_tasks(stage._loop):
            for task in tasks:
                task.cancel()
            stage._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            stage._loop.run_until_complete(asyncio.sleep(0.01))  # in which the connections are closed
        stage._loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert stage._is_open.wait(10)
        yield stage
    finally:
        stage._loop.call_soon_threadsafe(stopping.set)
        thread.join(60)
        assert not thread.is_alive()
