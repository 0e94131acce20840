"""A socket that answers like HAProxy's runtime socket, or not at all."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def answering_cli(path: Path, answer: str | None) -> Iterator[list[bytes]]:
    """Answer each question on a socket for the length of a block; None lets it wait. Yield the questions."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):  # it was shut down
                while True:
                    link, _ = listener.accept()
                    with link:
                        asked.append(link.recv(65536))
                        link.sendall((answer or "").encode())

        thread = threading.Thread(target=serve)
        if answer is not None:
            thread.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            if answer is not None:
                thread.join()
    path.unlink()
