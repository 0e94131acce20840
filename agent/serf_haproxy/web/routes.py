"""The paths: what each answers. Only orders about nodes change anything (`web.maint`)."""

import asyncio
import json

from serf_haproxy.control.history import History
from serf_haproxy.errors import SystemFault
from serf_haproxy.web import metrics
from serf_haproxy.web.access import Access
from serf_haproxy.web.board import Board
from serf_haproxy.web.maint import Maint
from serf_haproxy.web.page import Page
from serf_haproxy.web.request import JSON, Request, Response, refuse

_FRESH_S = 1.0
_PING_S = 15.0
_WRITE_S = 10.0
_HISTORY_BYTES = 256 * 1024  # of each of two files
_STREAM_S = 3600.0  # then the page connects again


class Routes:
    """Answers requests from the board.

    Args:
        access: Who may ask.
        board: What is shown.
        page: The page.
        history: What the daemon has written down.
        maint: Takes orders about nodes.
    """

    def __init__(self, access: Access, board: Board, page: Page, history: History, maint: Maint) -> None:
        self._access = access
        self._board = board
        self._page = page
        self._history = history
        self._maint = maint

    async def answer(self, request: Request) -> Response:
        """Return the response to a request; one of type `text/event-stream` goes on with `follow`."""
        match request.path:
            case ("v1", "nodes", node, "maint"):
                return await self._order(request, node, "")
            case ("v1", "services", service, "servers", node, "maint"):
                return await self._order(request, node, service)
        if request.method not in ("GET", "HEAD"):
            return refuse(405, "only GET and HEAD: nothing is changed here", Allow="GET, HEAD")
        match request.path:
            case ("healthz",):
                is_good = self._board.is_alive()
                return Response(200, b"ok\n") if is_good else refuse(503, "the daemon makes no passes")
            case ("readyz",):
                is_good = self._board.is_ready()
                return Response(200, b"ok\n") if is_good else refuse(503, "HAProxy does not run what it should")
        refusal = self._access.refuse(request)
        return refusal or await self._show(request)

    async def _order(self, request: Request, node: str, service: str) -> Response:
        if refusal := self._access.refuse(request) or self._maint.refuse(request):
            return refusal
        return await asyncio.to_thread(self._maint.obey, request, node, service)

    async def _show(self, request: Request) -> Response:
        match request.path:
            case ("",):
                return self._page.response
            case ("v1", "stream"):
                return Response(200, b"", "text/event-stream")
            case ("metrics",):
                await self._board.refresh(_FRESH_S)
                return Response(200, self._board.metrics.format(), metrics.CONTENT_TYPE)
            case ("v1", "history"):
                return await self._show_history()
            case ("v1", "status" | "config") | ("v1", "services", _, "servers", _):
                return await self._show_reading(request.path)
        return refuse(404, "there is no such path; see docs/reference/web.md")

    async def _show_reading(self, path: tuple[str, ...]) -> Response:
        latest = await self._board.refresh(_FRESH_S)
        if latest is None:
            return refuse(503, "nothing could be read yet; the daemon's log says why")
        match path:
            case ("v1", "config"):
                return Response(200, self._board.config.encode("utf-8", "backslashreplace"))
            case ("v1", "services", service, "servers", name):
                found = await asyncio.to_thread(latest.explain, service, name)
                return _format_json(found) if found else refuse(404, "there is no such node in this service")
        return _format_json(latest.document | {"read_s": latest.at_s})

    async def _show_history(self) -> Response:
        try:
            found = await asyncio.to_thread(self._history.read_last, _HISTORY_BYTES)
        except SystemFault as error:
            return refuse(503, str(error))
        return _format_json({"version": 1, "happenings": [one._asdict() for one in found]})

    async def follow(self, _request: Request, writer: asyncio.StreamWriter) -> None:
        """Send a page what changes, as server-sent events, until it goes or does not keep up."""
        queue = self._board.watch()
        try:
            async with asyncio.timeout(_STREAM_S):
                while True:
                    try:
                        async with asyncio.timeout(_PING_S):
                            message = await queue.get()
                    except TimeoutError:
                        message = b""
                    if message is None:
                        return
                    writer.write(b"data: " + message + b"\n\n" if message else b":\n\n")
                    async with asyncio.timeout(_WRITE_S):
                        await writer.drain()
        finally:
            self._board.leave(queue)


def _format_json(value: object) -> Response:
    return Response(200, json.dumps(value).encode() + b"\n", JSON)
