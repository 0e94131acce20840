"""The server: connections within limits of number, size and time. No client makes another one wait."""

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable

from serf_haproxy.errors import SystemFault
from serf_haproxy.settings import variable
from serf_haproxy.web.request import HEAD_BYTES, BadRequestError, Request, Response, format_head, read_request, refuse

log = logging.getLogger("serf-haproxy")

Answer = Callable[[Request], Awaitable[Response]]
Follow = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]

_READ_S = 5.0  # for a whole request
_MOMENT_S = 0.5  # after it, for what has come while this process could not run
_LINGER_S, _LINGER_BYTES = 1.0, 512 * 1024  # for what a client sends that is not read
_WRITE_S = 10.0  # for a whole response
_CONNECTION_COUNT = 64  # those that answer or are answered
_STREAM_COUNT = 16  # those of them that are followed, of the page
_BACKLOG_COUNT = 128
_SENT_BYTES = 64 * 1024  # that the kernel keeps for a client which does not take them; it makes twice as many of it
_POLL_S = 0.05
_LENGTHS = {"content-length", "transfer-encoding"}


class Server:
    """Listens, reads requests and writes responses.

    Args:
        bind: `address:port`, or the path of a Unix socket.
        answer: Answers a request. It must not raise.
        follow: Writes the rest of a response without an end, until the client goes.
    """

    def __init__(self, bind: str, answer: Answer, follow: Follow) -> None:
        self._bind = bind
        self._answer = answer
        self._follow = follow
        self._reading: dict[asyncio.StreamWriter, None] = {}  # the oldest first
        self._count = self._stream_count = 0
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            SystemFault: That is not possible.
        """
        try:
            self._listener = await (self._listen_at_path() if self._bind.startswith("/") else self._listen_at_port())
        except OSError as error:
            remedy = f"free it, or change {variable('web_bind')}"
            words = os.strerror(error.errno) if error.errno else str(error)
            raise SystemFault(f"cannot listen at {self._bind}: {words}; {remedy}") from error

    async def finish(self, within_s: float) -> None:
        """Take no further connections, and answer the requests that have come; after `within_s` give up the rest."""
        if self._listener is not None:
            self._listener.close()
        if self._bind.startswith("/"):
            with contextlib.suppress(OSError):
                os.unlink(self._bind)
        end_s = time.monotonic() + within_s
        await asyncio.sleep(_POLL_S)  # for a request that has come, and has not been read
        while self._count > len(self._reading) + self._stream_count and time.monotonic() < end_s:
            await asyncio.sleep(_POLL_S)

    async def _listen_at_port(self) -> asyncio.Server:
        host, _, port = self._bind.rpartition(":")
        where = None if host in ("", "*") else host.strip("[]")
        return await asyncio.start_server(
            self._serve, where, int(port), limit=HEAD_BYTES, backlog=_BACKLOG_COUNT, reuse_address=True
        )

    async def _listen_at_path(self) -> asyncio.Server:
        """Listen at a Unix socket that only this user can open."""
        mask = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(self._serve, self._bind, limit=HEAD_BYTES, backlog=_BACKLOG_COUNT)
        finally:
            os.umask(mask)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close."""
        if self._count >= _CONNECTION_COUNT and not self._make_room():
            writer.transport.abort()
            return
        self._count += 1
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENT_BYTES)
        try:
            await self._exchange(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # the client went, or is too slow
        finally:
            self._count -= 1
            writer.transport.abort()

    def _make_room(self) -> bool:
        """End the connection that has taken longest to send its request; return whether there was one."""
        oldest = next(iter(self._reading), None)
        if oldest is None:
            return False
        del self._reading[oldest]
        oldest.transport.abort()
        return True

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        response, request = await self._read(reader, writer)
        if response is None and request is not None:
            response = await self._answer(request)
        if response is None:
            return
        async with asyncio.timeout(_WRITE_S):
            is_short = request is not None and request.method == "HEAD"
            is_stream = response.content_type == "text/event-stream" and not is_short
            if is_stream and self._stream_count >= _STREAM_COUNT:
                response, is_stream = refuse(503, f"{_STREAM_COUNT} pages are open already; close one"), False
            writer.write(format_head(response, None if is_stream else len(response.body)))
            writer.write(b"" if is_short else response.body)
            await writer.drain()
        if is_stream and request is not None:
            await self._stream(request, reader, writer)
            return
        if request is None or (not request.body and _LENGTHS & request.headers.keys()):
            await self._linger(reader, writer)
        writer.close()
        async with asyncio.timeout(_WRITE_S):
            await writer.wait_closed()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Response | None, Request | None]:
        """Read a request within the limits; return the response to one that is wrong, else the request."""
        self._reading[writer] = None
        task = asyncio.ensure_future(read_request(reader))
        try:
            for wait_s in (_READ_S, _MOMENT_S):
                await asyncio.wait([task], timeout=wait_s)
            if not task.done():
                raise TimeoutError
            return None, task.result()._replace(user=_find_user(writer))
        except BadRequestError as error:
            return error.response, None
        finally:
            task.cancel()
            self._reading.pop(writer, None)

    async def _linger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what a refused client still sends.

        To close a connection with bytes that are not read resets it, and the client loses the answer.
        """
        self._reading[writer] = None
        try:
            writer.write_eof()
            async with asyncio.timeout(_LINGER_S):
                for _ in range(_LINGER_BYTES // HEAD_BYTES):
                    if not await reader.read(HEAD_BYTES):
                        return
        except TimeoutError:
            pass
        finally:
            self._reading.pop(writer, None)

    async def _stream(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Follow until either side ends; what a client sends after its request ends it, too."""
        self._stream_count += 1
        tasks = [asyncio.ensure_future(self._follow(request, writer)), asyncio.create_task(reader.read(1))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stream_count -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _find_user(writer: asyncio.StreamWriter) -> int | None:
    """Return the number of the user at the other end of a Unix socket."""
    connection = writer.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        return None
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)
