"""Clients that send requests at given times, whether or not earlier ones are answered: an open loop.

Each client has its own source address, cookies and keep-alive connections: a request takes an idle one, or opens a
further one. Nothing is repeated. The latency counts from the time for which a request was planned, so a request that
is sent late because the machine is busy is not taken for a fast one.
"""

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from typing import cast

from serf_haproxy.errors import SystemFault
from serf_haproxy.lab.arrivals import CLIENT_COUNT, Request

ANSWER_S = 10.0
_SWEEP_S = 0.25
_LEAD_S = 0.1
_FAILED = math.inf


@dataclasses.dataclass
class Spec:
    """What to send.

    Attributes:
        doors: Address and port of each balancer; requests go to them in turn.
        requests: The requests, by time.
        path: The path of all requests; "{item}" in it stands for the number of the item.
        keeps_cookies: Whether clients send back the cookies that they get.
        lag_s: A request that is sent later than this is late.
        late_count: With more late requests than this `Clients.run` gives up.
        answer_s: A request without an answer by then has failed.
    """

    doors: Sequence[tuple[str, int]]
    requests: Sequence[Request]
    path: str = "/"
    keeps_cookies: bool = False
    lag_s: float = math.inf
    late_count: int = 0
    answer_s: float = ANSWER_S


@dataclasses.dataclass(slots=True)
class Answer:
    """What came of a request.

    Attributes:
        at_s: When it was planned, seconds after the start.
        lag_s: How much later it was sent.
        took_s: From the planned time to the last byte; infinite for a failure.
        server: What the server that answered calls itself in X-Backend-IP; "" for none.
        client: The client's number.
        fault: Why it failed, "" for a good answer.
    """

    at_s: float
    lag_s: float
    took_s: float = _FAILED
    server: str = ""
    client: int = 0
    fault: str = "no answer"


class Link(asyncio.Protocol):
    """One connection of a client, with at most one request on it."""

    def __init__(self, clients: "Clients", key: tuple[int, int]) -> None:
        self.key = key
        self.answer: Answer | None = None
        self._clients, self._data = clients, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def send(self, answer: Answer, text: bytes) -> None:
        """Send a request."""
        self.answer, self._data = answer, b""
        self.transport.write(text)

    def data_received(self, data: bytes) -> None:
        """Finish the request when its answer is complete."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found or self.answer is None:
            return
        lines = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
        fields = {key.lower(): value for key, _, value in lines}
        length = int(fields.get(b"content-length", b"0"))
        if len(body) < length:
            return
        answer, self.answer = self.answer, None
        answer.server = fields.get(b"x-backend-ip", b"").decode()
        status = head[9:12].decode("latin-1")
        cookies = [value.partition(b";")[0] for key, _, value in lines if key.lower() == b"set-cookie"]
        self._clients.finish(self, answer, "" if status == "200" else status, cookies)
        if fields.get(b"connection", b"").lower() == b"close":
            self.transport.close()
        else:
            self._clients.idle.setdefault(self.key, []).append(self)

    def connection_lost(self, _fault: Exception | None) -> None:
        """Fail the request that was on it."""
        answer, self.answer = self.answer, None
        if answer:
            self._clients.finish(self, answer, "closed", [])
        self._clients.forget(self)


class Clients:
    """All clients.

    Attributes:
        idle: The idle connections by client and balancer.
        start_s: When the first request may come, on the monotonic clock.
        answers: What came of the requests that have been sent so far.
    """

    def __init__(self, spec: Spec) -> None:
        self.idle: dict[tuple[int, int], list[Link]] = {}
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self.start_s = self._loop.time() + _LEAD_S
        self._cookies: dict[int, dict[bytes, bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[Link] = set()
        self._links: set[Link] = set()
        self.answers: list[Answer] = []
        self._late_count = 0

    async def run(self) -> list[Answer]:
        """Send all requests; return what came of them.

        Raises:
            SystemFault: Too many requests were late.
        """
        try:
            await self._send_all()
            end_s = self._loop.time() + self._spec.answer_s
            while (self._open or self._tasks) and self._loop.time() < end_s:
                await asyncio.sleep(_SWEEP_S)
        finally:
            for link in self._links:
                link.answer = None
                link.transport.abort()
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0)  # the transports close
        return self.answers

    async def _send_all(self) -> None:
        spec = self._spec
        for number, request in enumerate(spec.requests):
            pause_s = self.start_s + request.at_s - self._loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            self._begin(request, number % len(spec.doors))
            if self._late_count > spec.late_count:
                raise SystemFault(f"more than {spec.late_count} requests were late: the machine is busy")
            self._sweep(number)

    def forget(self, link: Link) -> None:
        """Enter the end of a connection."""
        self._links.discard(link)

    def finish(self, link: Link, answer: Answer, fault: str, cookies: Sequence[bytes]) -> None:
        """Enter the end of a request."""
        self._open.discard(link)
        answer.fault = fault
        if not fault:
            answer.took_s = self._loop.time() - self.start_s - answer.at_s
        if self._spec.keeps_cookies and cookies:
            pairs = (cookie.partition(b"=") for cookie in cookies)
            self._cookies.setdefault(answer.client, {}).update({name: value for name, _, value in pairs})

    def _begin(self, request: Request, door: int) -> None:
        lag_s = self._loop.time() - self.start_s - request.at_s
        answer = Answer(request.at_s, lag_s, client=request.client)
        self.answers.append(answer)
        self._late_count += lag_s > self._spec.lag_s
        text = self._write(request)
        key = request.client, door
        links = self.idle.get(key, [])
        while links:
            link = links.pop()
            if not link.transport.is_closing():
                self._open.add(link)
                link.send(answer, text)
                return
        task = self._loop.create_task(self._connect(key, answer, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _write(self, request: Request) -> bytes:
        path = self._spec.path.replace("{item}", str(request.item))
        lines = [f"GET {path} HTTP/1.1", "Host: lab", f"X-Work-Us: {request.work_us}"]
        text = "\r\n".join(lines).encode()
        if cookies := self._cookies.get(request.client):
            text += b"\r\nCookie: " + b"; ".join(b"%s=%s" % pair for pair in cookies.items())
        return text + b"\r\n\r\n"

    async def _connect(self, key: tuple[int, int], answer: Answer, text: bytes) -> None:
        host, port = self._spec.doors[key[1]]
        source = f"127.20.0.{key[0] % CLIENT_COUNT + 1}", 0
        try:
            _, link = await self._loop.create_connection(lambda: Link(self, key), host, port, local_addr=source)
        except OSError as error:
            answer.fault = f"connect: {error.strerror}"
            return
        self._links.add(link)
        self._open.add(link)
        link.send(answer, text)

    def _sweep(self, number: int) -> None:
        """Give up what is too old, now and then."""
        if number % 256:
            return
        oldest_s = self._loop.time() - self.start_s - self._spec.answer_s
        for link in [link for link in self._open if link.answer and link.answer.at_s < oldest_s]:
            link.answer = None
            self._open.discard(link)
            link.transport.abort()
