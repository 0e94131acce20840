"""HTTP requests at a constant rate against loopback, each answer checked.

Each worker is a process with one non-blocking socket for each request, or for each of its keep-alive clients. An answer
is good when its status is 200, its length is as announced and its body is one of an application. All other results are
failures, kept with time and reason. No request is repeated.
"""

import array
import collections
import contextlib
import dataclasses
import errno
import ipaddress
import multiprocessing
import multiprocessing.connection
import re
import select
import socket
import time
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: %s\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_ANSWER_S = 20.0
_LIFE_S = 3600.0  # a worker ends after this time in any case
_OPEN_COUNT = 400  # requests of one worker at a time; at this limit it starts no more


@dataclasses.dataclass
class Seen:
    """The results of a worker.

    Attributes:
        starts_s: When each request with a good answer was sent, on the monotonic clock.
        took_s: How long each of these took, from before the connection to the last byte.
        failures: When each other request was sent, and what happened.
        bodies: Number of good answers by body.
    """

    starts_s: "array.array[float]" = dataclasses.field(default_factory=lambda: array.array("d"))
    took_s: "array.array[float]" = dataclasses.field(default_factory=lambda: array.array("d"))
    failures: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    bodies: collections.Counter[bytes] = dataclasses.field(default_factory=collections.Counter)


class Fault(Exception):
    """A bad answer."""


class Exchange:
    """One connection and the request in flight on it."""

    __slots__ = ("data", "is_reusable", "link", "started_s", "unsent")

    def __init__(self, target: tuple[str, int]) -> None:
        self.link = socket.socket()
        self.link.setblocking(False)
        code = self.link.connect_ex(target)
        if code not in (0, errno.EINPROGRESS):
            raise Fault(f"connect: {errno.errorcode.get(code, code)}")

    def send(self, request: bytes, started_s: float) -> bool:
        """Send a request; return whether it was sent completely."""
        self.started_s, self.unsent, self.data, self.is_reusable = started_s, request, b"", False
        return self.go_on()

    def go_on(self) -> bool:
        """Send the rest of the request; return whether it was sent completely."""
        if self.unsent:
            with contextlib.suppress(BlockingIOError):
                self.unsent = self.unsent[self.link.send(self.unsent) :]
        return not self.unsent

    def receive(self) -> bytes | None:
        """Read the data that has arrived; return the body once the answer is complete, None before."""
        try:
            chunk = self.link.recv(65536)
        except BlockingIOError:
            return None
        self.data += chunk
        head, separator, body = self.data.partition(b"\r\n\r\n")
        if not separator:
            if not chunk:
                raise Fault(f"closed after {len(self.data)} bytes")
            return None
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200 ") or not length:
            raise Fault(head.partition(b"\r\n")[0].decode("latin-1"))
        closes = bool(_CLOSES.search(head))
        if len(body) < int(length[1]) or (closes and chunk):
            if not chunk:
                raise Fault(f"closed after {len(body)} of {int(length[1])} bytes")
            return None
        if len(body) > int(length[1]):
            raise Fault(f"{len(body)} bytes instead of {int(length[1])}")
        self.is_reusable = not closes and bool(chunk)
        return body


class Worker:
    """Sends requests at a constant rate until it is stopped.

    Args:
        target: Loopback address and port.
        rate: Requests a second.
        clients: Number of keep-alive clients that take turns; 0 for a new connection for each request.
        bodies: The bodies of good answers.
    """

    def __init__(self, target: tuple[str, int], rate: float, clients: int, bodies: frozenset[bytes]) -> None:
        assert ipaddress.ip_address(target[0]).is_loopback
        self.target, self.rate, self.clients, self.bodies = target, rate, clients, bodies
        self.request = _REQUEST % (b"keep-alive" if clients else b"close")
        self.seen = Seen()
        self.open: dict[int, Exchange] = {}
        self.idle: collections.deque[Exchange] = collections.deque()

    def run(self, stop: Event, answered: "Synchronized[int]") -> Seen:
        """Send requests until `stop` is set, then wait for those in flight; count good answers in `answered`."""
        self.poll = select.epoll()
        due_s = time.monotonic()
        end_s, looked_s = due_s + _LIFE_S, due_s
        is_stopping = False
        while not is_stopping or self.open:
            now_s = time.monotonic()
            if not is_stopping:
                due_s = self._start_due(now_s, due_s)
            wait_s = 0.05 if is_stopping or len(self.open) >= self._most() else min(0.05, max(0.0, due_s - now_s))
            for number, _ in self.poll.poll(wait_s):
                self._serve(self.open[number])
            if now_s - looked_s > 0.05:
                looked_s = now_s
                answered.value = len(self.seen.took_s)
                is_stopping = stop.is_set() or now_s > end_s
                self._expire(now_s)
        while self.idle:
            self.idle.popleft().link.close()
        return self.seen

    def _most(self) -> int:
        return self.clients or _OPEN_COUNT

    def _start_due(self, now_s: float, due_s: float) -> float:
        """Start the requests that are due; return when the next one is due."""
        due_s = max(due_s, now_s - 1.0)  # after a longer delay, the missed requests are skipped
        while due_s <= now_s and len(self.open) < self._most():
            self._start()
            due_s += 1 / self.rate
        return due_s

    def _start(self) -> None:
        started_s = time.monotonic()
        try:
            exchange = self.idle.popleft() if self.idle else Exchange(self.target)
            is_sent = exchange.send(self.request, started_s)
        except (OSError, Fault) as error:
            self.seen.failures.append((started_s, f"{error!r} at the start"))
            return
        number = exchange.link.fileno()
        self.open[number] = exchange
        self.poll.register(number, select.EPOLLIN if is_sent else select.EPOLLIN | select.EPOLLOUT)

    def _serve(self, exchange: Exchange) -> None:
        try:
            if exchange.unsent:
                if not exchange.go_on():
                    return
                self.poll.modify(exchange.link.fileno(), select.EPOLLIN)
            body = exchange.receive()
            if body is None:
                return
            if body not in self.bodies:
                raise Fault(f"not the body of an application: {body[:60]!r}")
        except (OSError, Fault) as error:
            self.seen.failures.append((exchange.started_s, repr(error)))
            exchange.is_reusable = False
        else:
            self.seen.starts_s.append(exchange.started_s)
            self.seen.took_s.append(time.monotonic() - exchange.started_s)
            self.seen.bodies[body] += 1
        self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        number = exchange.link.fileno()
        self.poll.unregister(number)
        del self.open[number]
        if self.clients and exchange.is_reusable:
            self.idle.append(exchange)
        else:
            exchange.link.close()

    def _expire(self, now_s: float) -> None:
        for exchange in [each for each in self.open.values() if now_s - each.started_s > _ANSWER_S]:
            self.seen.failures.append((exchange.started_s, f"no answer in {_ANSWER_S:g} s"))
            exchange.is_reusable = False
            self._finish(exchange)


class Load:
    """Running workers; `seen` has their results after the block."""

    def __init__(self, counts: "list[Synchronized[int]]") -> None:
        self._counts = counts
        self.seen: list[Seen] = []

    def answered_counts(self) -> list[int]:
        """Return the number of good answers so far, by worker."""
        return [count.value for count in self._counts]


@contextlib.contextmanager
def run_workers(workers: list[Worker]) -> Iterator[Load]:
    """Run workers, each in a process of its own, for the length of the block."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    counts: list[Synchronized[int]] = [context.Value("l", 0) for _ in workers]
    load = Load(counts)
    pairs = []
    for worker, count in zip(workers, counts, strict=True):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(worker, stop, count, theirs), daemon=True)
        process.start()
        theirs.close()
        pairs.append((process, mine))
    try:
        yield load
    finally:
        stop.set()
        try:
            load.seen = [mine.recv() for _, mine in pairs]
        finally:
            for process, _ in pairs:
                process.join(30)
                process.kill()


def _work(
    worker: Worker, stop: Event, answered: "Synchronized[int]", answer: multiprocessing.connection.Connection
) -> None:
    answer.send(worker.run(stop, answered))
