"""A small web application: application.py ADDRESS PORT."""

import asyncio
import sys

_BODY = b"hello\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of a connection."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            closes = b"connection: close" in head.lower()
            body = b"" if head.startswith(b"HEAD ") else _BODY
            writer.write(_ANSWER % (len(_BODY), b"close" if closes else b"keep-alive") + body)
            await writer.drain()
            if closes:
                break
    except (OSError, EOFError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serve without end."""
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
