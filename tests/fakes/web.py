"""A web application in a thread, which can be told to fail."""

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator

from fakes.servers import serving_in_thread


class Web:
    """What an application does.

    Attributes:
        port: Its TCP port on 127.0.0.1.
        status: What it answers to GET and HEAD.
        count: GET requests so far; health checks use HEAD.
        is_willing: While it is cleared, answers to GET wait.
    """

    def __init__(self) -> None:
        self.port = 0
        self.status = 200
        self.count = 0
        self.is_willing = threading.Event()
        self.is_willing.set()


@contextlib.contextmanager
def answering(port: int = 0, delay_s: float = 0.0) -> Iterator[Web]:
    """Run an application on 127.0.0.1, at a free port unless one is given, for the length of the block.

    Args:
        port: Its port; 0 for a free one.
        delay_s: How long each answer to GET takes.
    """
    web = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(web.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            web.count += 1
            time.sleep(delay_s)
            web.is_willing.wait(600)
            self.do_HEAD()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """Ignore a client that is gone."""

    with serving_in_thread(Server(("127.0.0.1", port), Handler)) as web.port:
        yield web
