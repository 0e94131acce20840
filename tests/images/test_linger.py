"""How long a web application serves on after its node has begun to leave."""

import http.server
import importlib.util
import json
import socket
import threading
import time
from collections.abc import Iterator
from types import ModuleType

import pytest

from conftest import ROOT

MEMBERS = [
    "b  10.0.0.2:7946  alive  port=3000,role=web",
    "a  [fd00::1]:7946  leaving  role=web,port=81",
    "c  10.0.0.9:7946  alive  role=web,xport=3",
    "no member",
]


@pytest.fixture(scope="module")
def linger() -> ModuleType:
    """Return the program as a module."""
    spec = importlib.util.spec_from_file_location("linger", ROOT / "images" / "webapp" / "linger.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class App:
    """A server that says for how long it has been idle: since a moment that a test may move.

    Attributes:
        asked_s: That moment.
        retired_s: When it was told to fail its health checks; None as long as it was not.
    """

    def __init__(self) -> None:
        self.asked_s = float("inf")  # requests arrive all the time
        self.retired_s: float | None = None
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"idle_s": max(0.0, time.monotonic() - app.asked_s)}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                assert self.path == "/retire"
                app.retired_s = time.monotonic()
                self.do_GET()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """Yield a running application; the grace is 0.2 s and the limit 4 s."""
    app = App()
    thread = threading.Thread(target=app.server.serve_forever)
    thread.start()
    environ = {"APP_HOST": "127.0.0.1", "APP_PORT": str(app.port), "APP_GRACE_S": "0.2", "APP_GRACE_MAX_S": "4"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    yield app
    app.server.shutdown()
    app.server.server_close()
    thread.join()


def wait(linger: ModuleType, *lines: str) -> float:
    """Wait as node a; return for how long, seconds."""
    started_s = time.monotonic()
    assert linger.wait("a", time.clock_gettime(time.CLOCK_BOOTTIME), lines) == 0
    return time.monotonic() - started_s


def test_peers_are_those_of_the_first_node(linger: ModuleType) -> None:
    """The first one by name learns where the others listen, another one or a stranger does not."""
    assert linger.find_peers("a", MEMBERS) == [("10.0.0.2", 3000)]
    assert linger.find_peers("b", MEMBERS) == []
    assert linger.find_peers("z", MEMBERS) == []
    assert linger.find_peers("a", []) == []


def test_it_stops_after_the_grace_when_no_request_arrives(linger: ModuleType, app: App) -> None:
    """An application that no one asks any more may stop after its grace."""
    app.asked_s = time.monotonic() - 10
    assert wait(linger) < 1
    assert app.retired_s is None


def test_it_serves_until_no_request_has_arrived_for_a_while(linger: ModuleType, app: App) -> None:
    """It goes on while requests arrive, and stops 2.5 s after the last one."""
    app.asked_s = time.monotonic() - 1.9
    assert 0.6 <= wait(linger) < 1.5
    assert app.retired_s is None


def test_it_serves_until_the_limit_while_requests_arrive(linger: ModuleType, app: App) -> None:
    """While requests arrive, it goes on until the limit, also as the first one if no other one serves.

    At the end it fails its health checks for longer than a balancer needs to see it.
    """
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert wait(linger, "a  127.0.0.1:1  alive  port=1", f"b  127.0.0.1:1  leaving  port={port}") >= 4
    assert app.retired_s
    assert 1.9 <= time.monotonic() - app.retired_s < 2.5


def test_the_first_one_goes_earlier_while_another_one_serves(linger: ModuleType, app: App) -> None:
    """Though requests arrive, the first one by name goes after a third of the limit if another one serves."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        line = f"b  127.0.0.1:1  leaving  port={other.getsockname()[1]}"
        assert 1.3 <= wait(linger, line) - linger.RETIRE_S < 1.9
    assert app.retired_s


def test_where_there_is_no_time_health_checks_are_answered_until_the_end(
    linger: ModuleType, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit soon after the grace it goes on until the limit and fails no health check."""
    monkeypatch.setenv("APP_GRACE_MAX_S", "1")
    assert 1 <= wait(linger) < 1.5
    assert app.retired_s is None


def test_an_application_that_cannot_be_asked_is_an_error(linger: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer it ends with 1, and the caller waits for the usual grace instead."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("APP_HOST", "127.0.0.1")
    monkeypatch.setenv("APP_PORT", str(port))
    monkeypatch.setenv("APP_GRACE_S", "0.1")
    assert linger.wait("a", time.clock_gettime(time.CLOCK_BOOTTIME), []) == 1


def test_times_count_from_the_beginning_of_the_leave(linger: ModuleType, app: App) -> None:
    """A program that starts late, on a busy machine, waits no longer in all: it is past its limit and stops."""
    started_s = time.monotonic()
    assert linger.wait("a", time.clock_gettime(time.CLOCK_BOOTTIME) - 10, []) == 0
    assert time.monotonic() - started_s < linger.RETIRE_S + 1
    assert app.retired_s


def test_an_application_that_is_too_busy_to_answer_is_taken_as_needed(
    linger: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that accepts connections and does not answer serves on until its limit, and not for longer."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        environ = {"APP_HOST": "127.0.0.1", "APP_PORT": str(busy.getsockname()[1])}
        for name, value in (environ | {"APP_GRACE_S": "0.1", "APP_GRACE_MAX_S": "1.5"}).items():
            monkeypatch.setenv(name, value)
        assert 1.5 <= wait(linger) < 1.5 + linger.ANSWER_S - 1
