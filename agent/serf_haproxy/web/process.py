"""The web process: it serves until the daemon, which feeds its standard input, ends."""

import asyncio
import os
import sys

from serf_haproxy.control.history import History
from serf_haproxy.settings import Settings
from serf_haproxy.web.access import Access
from serf_haproxy.web.board import Board
from serf_haproxy.web.maint import Maint
from serf_haproxy.web.news import LINE_BYTES, parse_news
from serf_haproxy.web.page import Page
from serf_haproxy.web.routes import Routes
from serf_haproxy.web.server import Server

_NICENESS = 10  # passes come first
_FINISH_S = 0.5  # for answers to the requests that have come; the daemon waits for the end of this process


def serve(settings: Settings) -> None:
    """Serve until standard input ends.

    Raises:
        SystemFault: The process cannot listen, or the token is missing.
    """
    os.nice(_NICENESS)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    board, maint = Board(settings), Maint(settings)
    routes = Routes(Access(settings), board, Page(), History(settings.state_dir), maint)
    server = Server(settings.web_bind, routes.answer, routes.follow)
    await server.start()
    tasks = [asyncio.create_task(board.run()), asyncio.create_task(_hear(board))]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        board.close()
        await server.finish(_FINISH_S)


async def _hear(board: Board) -> None:
    """Take what the daemon tells until it ends."""
    reader = asyncio.StreamReader(limit=2 * LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await reader.readline():
        if news := parse_news(line):
            board.hear(news)
