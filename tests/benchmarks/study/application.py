"""One server of the study: a process that answers HTTP requests after the work that each of them brings.

Usage: application.py ADDRESS PORT NAME

A request says in `X-Work-Us` how long its work takes at an ordinary server, microseconds. `WORKER_COUNT` requests are
worked on at a time and the others wait in their order, so a queue forms. The work is a pause, which costs no processor.
HEAD, the health check, is answered at once.

It prints a line once it listens. Lines on its standard input change it: `times 10` makes all work ten times as long,
`status 500` lets it answer with this status at once. At the end of that input it ends.
"""

import asyncio
import collections
import os
import sys

WORKER_COUNT = 4
_READ_BYTES = 4096


class Shop:
    """The workers of this process, and the requests that wait for one of them."""

    def __init__(self, name: str) -> None:
        self.times, self.status = 1.0, 200
        self._name = name
        self._free_count = WORKER_COUNT
        self._waiting: collections.deque[tuple[Link, float]] = collections.deque()

    def take(self, link: "Link", work_s: float) -> None:
        """Take a request of this much work."""
        if self.status != 200:
            link.answer(self.write())
        elif self._free_count:
            self._start(link, work_s)
        else:
            self._waiting.append((link, work_s))

    def write(self) -> bytes:
        """Return an answer."""
        return b"HTTP/1.1 %d X\r\nX-Backend-IP: %s\r\nContent-Length: 2\r\n\r\nok" % (self.status, self._name.encode())

    def _start(self, link: "Link", work_s: float) -> None:
        self._free_count -= 1
        asyncio.get_running_loop().call_later(work_s * self.times, self._finish, link)

    def _finish(self, link: "Link") -> None:
        self._free_count += 1
        link.answer(self.write())
        if self._waiting:
            self._start(*self._waiting.popleft())


class Link(asyncio.Protocol):
    """One connection; a request on it has no body."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._data = shop, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take each request that has arrived completely."""
        *heads, self._data = (self._data + data).split(b"\r\n\r\n")
        for head in heads:
            if head.startswith(b"HEAD "):
                self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            else:
                self._shop.take(self, int(head.lower().partition(b"x-work-us: ")[2].partition(b"\r\n")[0] or 0) / 1e6)

    def answer(self, text: bytes) -> None:
        """Send an answer, if the client is still there."""
        if not self._transport.is_closing():
            self._transport.write(text)


async def serve(address: str, port: int, name: str) -> None:
    """Serve until the end of the standard input."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    shop = Shop(name)

    def obey() -> None:
        text = os.read(0, _READ_BYTES).decode()
        for line in text.splitlines():
            key, value = line.split()
            setattr(shop, key, float(value) if key == "times" else int(value))
        if not text:
            loop.remove_reader(0)
            over.set()

    await loop.create_server(lambda: Link(shop), address, port, backlog=1024)
    loop.add_reader(0, obey)
    print("ready", flush=True)
    await over.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
