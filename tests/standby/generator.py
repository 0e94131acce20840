"""Requests at a constant rate, each on a connection of its own, whatever becomes of the others.

Usage: generator.py HOST PORT RATE LIMIT_S

It runs until its standard input ends, for LIMIT_S seconds at most, and then writes JSON: for each request when it
began, how long it took, and "" or what happened. No request is repeated. Times are those of the monotonic clock.
"""

import asyncio
import json
import sys
import time

_ANSWER_S = 5.0
_MOST_BYTES = 65536


async def request(host: str, port: int, seen: list[tuple[float, float, str]]) -> None:
    """Make one request and note what became of it."""
    began_s = time.monotonic()
    fault, writer = "", None
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            length = [
                line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            ]
            if not head.startswith(b"HTTP/1.1 200 "):
                fault = head.partition(b"\r\n")[0].decode("latin-1") or "closed without an answer"
            elif len(body) != int(length[0]):
                fault = f"{len(body)} of {int(length[0])} bytes"
    except TimeoutError:
        fault = "no answer in time"
    except OSError as error:
        fault = type(error).__name__
    finally:
        if writer:
            writer.transport.abort()
    seen.append((began_s, time.monotonic() - began_s, fault))


async def run(host: str, port: int, rate: float, limit_s: float) -> list[tuple[float, float, str]]:
    """Begin requests until standard input ends; wait for those under way."""
    seen: list[tuple[float, float, str]] = []
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    began_s, count, tasks = time.monotonic(), 0, set()
    while not ended.done() and time.monotonic() < began_s + limit_s:
        while count < (time.monotonic() - began_s) * rate:
            count += 1
            tasks.add(task := asyncio.create_task(request(host, port, seen)))
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0, began_s + count / rate - time.monotonic()))
    await asyncio.gather(*tasks)
    return seen


if __name__ == "__main__":
    json.dump(asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))), sys.stdout)
