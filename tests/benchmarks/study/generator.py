"""A process with the clients of a cell, so that nothing else that the study does holds them up.

Usage: generator.py < SPEC, a pickled `Spec`. It writes two pickles to its standard output: when it begins, on the
monotonic clock, and in the end the list of the fields of each `Answer`. Exit code `LATE`: too many requests were late.
"""

import asyncio
import contextlib
import dataclasses
import gc
import pickle
import sys

from serf_haproxy.errors import SystemFault
from serf_haproxy.lab.clients import Clients

LATE = 3


async def main() -> None:
    """Read the specification, send, and write the answers."""
    gc.disable()  # a collection would hold up requests
    clients = Clients(pickle.load(sys.stdin.buffer))
    sys.stdout.buffer.write(pickle.dumps(clients.start_s))
    sys.stdout.buffer.flush()
    try:
        answers = await clients.run()
    except SystemFault:
        sys.exit(LATE)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(pickle.dumps([dataclasses.astuple(answer) for answer in answers]))


if __name__ == "__main__":
    asyncio.run(main())
