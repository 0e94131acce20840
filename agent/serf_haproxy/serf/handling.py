"""What Serf's handlers have in common: reading what Serf sends, and telling errors. Cheap."""

import os

from serf_haproxy.errors import SerfHaproxyError

_CHUNK_BYTES = 65536


def read_input(most_bytes: int) -> bytes:
    """Return standard input, cut after so many bytes; b"" when it is closed."""
    chunks = []
    try:
        while most_bytes > 0 and (chunk := os.read(0, min(most_bytes, _CHUNK_BYTES))):
            chunks.append(chunk)
            most_bytes -= len(chunk)
    except OSError:
        return b""
    return b"".join(chunks)


def complain(handler: str, error: SerfHaproxyError) -> int:
    """Write an error to standard error as one line, after the handler's name; return its exit code."""
    try:
        os.write(2, f"{handler}: {error}\n".encode("ascii", "backslashreplace"))
    except OSError:
        pass  # standard error is closed; the handler goes on anyway
    return error.exit_code
