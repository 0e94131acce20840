"""The TCP application of a lab: it greets each client with a line `NAME ADDRESS`, then sends back what it gets.

Settings: APP_HOST, APP_PORT, APP_TAG (its name). After SIGTERM or SIGINT it takes no more connections, gives those that
are open a moment, and exits with 0. Exit code 111: it cannot listen.
"""

import asyncio
import os
import signal
import socket
import sys

_READ_BYTES = 65536
_IDLE_S = 600.0  # a client that says nothing for longer is disconnected
_FINISH_S = 2.0


async def _serve(listener: socket.socket, name: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    talks: set[asyncio.Task[None]] = set()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            talks.add(task)
            task.add_done_callback(talks.discard)
        await _talk(reader, writer, name)

    server = await asyncio.start_server(greet, sock=listener)
    await stop.wait()
    server.close()
    if talks:
        _, left = await asyncio.wait(talks, timeout=_FINISH_S)
        for task in left:
            task.cancel()
        await asyncio.gather(*left)  # a connection that outlives the loop is a traceback with Python 3.13


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    try:
        writer.write(f"{name} {writer.get_extra_info('sockname')[0]}\n".encode())
        while data := await asyncio.wait_for(reader.read(_READ_BYTES), _IDLE_S):
            writer.write(data)
            await asyncio.wait_for(writer.drain(), _IDLE_S)
    except (TimeoutError, OSError):
        pass  # the client has gone, or a health check
    except asyncio.CancelledError:
        writer.transport.abort()
    finally:
        writer.close()


def main() -> int:
    """Listen and serve; return the exit code."""
    try:
        listener = socket.create_server((os.environ["APP_HOST"], int(os.environ["APP_PORT"])))
    except OSError as error:
        sys.stderr.write(f"echo: {error}\n")
        return 111
    asyncio.run(_serve(listener, os.environ.get("APP_TAG", "")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
