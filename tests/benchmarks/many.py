"""A HAProxy with many servers, all up, and a load for them."""

import contextlib
import http.client
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from applications import one_for_all

from integration.proxy import Proxy, free_port, running_proxy


@contextlib.contextmanager
def serving_many(count: int, **environment: str) -> Iterator[Proxy]:
    """Run a HAProxy that sees so many servers up; one application answers for all of them."""
    with (
        tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory,
        running_proxy(Path(directory), **environment) as proxy,
        one_for_all(Path(directory), free_port()) as application,
    ):
        names = [f"web{number:04}" for number in range(count)]
        for number, name in enumerate(names):
            proxy.record(name, application.port, f"127.{1 + number // 65536}.{number // 256 % 256}.{number % 256}")
        proxy.run_pass()
        proxy.wait_up(*names)
        yield proxy


@contextlib.contextmanager
def requests(proxy: Proxy, rate: float, *, keep_alive: bool) -> Iterator[None]:
    """Send requests one after another for the length of the block, so many a second at most."""
    is_over = threading.Event()

    def work() -> None:
        client = http.client.HTTPConnection(proxy.settings.frontend_bind, timeout=10)
        with contextlib.closing(client):
            while not is_over.wait(1 / rate):
                client.request("GET", "/")
                client.getresponse().read()
                if not keep_alive:
                    client.close()  # the next request opens it again

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(30)
