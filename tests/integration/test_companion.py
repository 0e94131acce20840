"""The companion with real Serf agents, and an engine that can be told what to say, to refuse and to break off."""

import contextlib
import http.server
import json
import os
import re
import signal
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from integration.agents import run_serf
from integration.proxy import free_port, wait_for
from integration.test_status import COMMAND

pytestmark = pytest.mark.usefixtures("time_limit")

NUMBERS = {name: digit * 64 for name, digit in (("one", "1"), ("two", "2"))}


class Engine:
    """An engine on a real socket: what runs, and what has happened.

    Attributes:
        path: Its socket.
        running: The containers that run, as it describes them.
        asked: The requests that it got: their verbs and paths.
        is_broken: Whether it answers every request with 500.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.running: dict[str, dict[str, object]] = {}
        self.asked: list[tuple[str, str]] = []
        self.is_broken = False
        self._streams: list[http.server.BaseHTTPRequestHandler] = []
        self._closing = threading.Event()
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Answers one request."""

            def do_GET(self) -> None:
                """Answer."""
                engine.answer(self)

            def address_string(self) -> str:
                """Return a name for the log: a Unix socket has no address."""
                return "client"

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        class Server(socketserver.ThreadingUnixStreamServer):
            """A server whose threads end with it."""

            daemon_threads = True

        self._server = Server(self.path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answer a request: a list, a container, or events until the stream is broken off."""
        path = urlsplit(request.path).path
        self.asked.append((request.command, path))
        number = path.split("/")[2] if path.count("/") == 3 else ""
        if self.is_broken or (number and number not in self.running):
            request.send_error(500 if self.is_broken else 404)
            return
        request.send_response(200)
        request.end_headers()
        if path == "/events":
            request.wfile.flush()
            self._streams.append(request)
            while request in self._streams and not self._closing.wait(0.02):
                pass
            return
        said = self.running[number] if number else [{"Id": one} for one in self.running]
        request.wfile.write(json.dumps(said).encode())

    def tell(self, number: str, action: str, **attributes: str) -> None:
        """Send an event."""
        line = json.dumps({"Action": action, "Actor": {"ID": number, "Attributes": attributes}}).encode() + b"\n"
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.wfile.write(line)
                stream.wfile.flush()

    def break_off(self) -> None:
        """End all streams of events."""
        self._streams.clear()

    def start(self, name: str, port: int, *, health: str = "healthy") -> None:
        """Have a container run, and say so."""
        number = NUMBERS[name]
        self.running[number] = {
            "Id": number,
            "Name": f"/{name}",
            "State": {"Running": True, "StartedAt": str(time.time()), "Health": {"Status": health}},
            "Config": {"Labels": {"serf-haproxy.service": "shop", "serf-haproxy.port": str(port)}},
            "NetworkSettings": {"Networks": {"front": {"IPAddress": "127.0.0.5", "IPPrefixLen": 8}}},
        }
        self.tell(number, "start")

    def close(self) -> None:
        """Stop."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Stage:
    """An engine, a Serf agent that stands for a balancer, and a companion."""

    def __init__(self, directory: Path, rpc_port: int, join: str) -> None:
        self.engine = Engine(directory / "engine")
        self._log = directory / "log"
        self._rpc_port, self._join = rpc_port, join
        low = free_port()
        self._ports = f"{low}-{low + 9}"
        self.companion = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start a companion; return it."""
        argv = [*COMMAND, "companion", f"--socket={self.engine.path}", f"--join={self._join}", "--max=5"]
        environ = os.environ | {"SERF_PROFILE": "local"}
        with self._log.open("ab") as log:
            self.companion = subprocess.Popen([*argv, f"--ports={self._ports}"], stderr=log, env=environ)
        return self.companion

    def log(self) -> str:
        """Return what the companions have logged."""
        return self._log.read_text()

    def members(self) -> dict[str, tuple[str, str]]:
        """Return status and tags of the members but the balancer, by name."""
        argv = ["serf", "members", f"-rpc-addr=127.0.0.1:{self._rpc_port}", "-format=json"]
        listed = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=10).stdout)["members"]
        return {one["name"]: (one["status"], one["tags"].get("svc.shop", "")) for one in listed if one["name"] != "lb1"}

    def wait(self, **members: tuple[str, str]) -> None:
        """Wait until these are the members."""
        wait_for(lambda: self.members() == members, lambda: f"{self.members()}\n{self.log()}", 20)

    def close(self) -> None:
        """Stop all."""
        self.companion.kill()
        self.companion.wait(10)
        self.engine.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Yield a stage whose companion runs."""
    rpc_port = free_port()
    with run_serf("lb1", "127.0.0.1", rpc_port, "role=balancer", options=("-profile=local",)) as join:
        stage = Stage(tmp_path, rpc_port, join)
        try:
            yield stage
        finally:
            stage.close()


def test_a_node_follows_what_the_engine_says(stage: Stage) -> None:
    """It joins, is drained, leaves at the signal that stops it and at no other, and all leave at SIGTERM."""
    stage.engine.start("one", 80)
    stage.engine.start("two", 81, health="starting")
    stage.wait(one=("alive", "80"))
    stage.engine.start("two", 81)
    stage.wait(one=("alive", "80"), two=("alive", "81"))
    stage.engine.running[NUMBERS["two"]]["State"] = {
        "Running": True,
        "StartedAt": "x",
        "Health": {"Status": "unhealthy"},
    }
    stage.engine.tell(NUMBERS["two"], "health_status: unhealthy")
    stage.wait(one=("alive", "80"), two=("alive", "81:drain"))
    stage.engine.tell(NUMBERS["one"], "kill", signal="1")
    stage.engine.tell(NUMBERS["two"], "kill", signal="15")
    stage.wait(one=("alive", "80"), two=("left", "81:drain"))
    assert "node one leaves" not in stage.log()
    began_s = time.monotonic()
    stage.companion.terminate()
    assert stage.companion.wait(10) == 0
    assert time.monotonic() - began_s < 8
    stage.wait(one=("left", "80"), two=("left", "81:drain"))
    assert {verb for verb, _ in stage.engine.asked} == {"GET"}
    assert all(re.fullmatch(r"/events|/containers/(\w{64}/)?json", path) for _, path in stage.engine.asked)


def test_an_engine_that_is_away_changes_no_node(stage: Stage) -> None:
    """Nodes stay, it is asked with growing pauses and told of once; what was missed is found afterwards."""
    stage.engine.start("one", 80)
    stage.wait(one=("alive", "80"))
    stage.engine.is_broken = True
    stage.engine.running.clear()
    asked = len(stage.engine.asked)
    stage.engine.break_off()
    time.sleep(4.0)
    assert 2 <= len(stage.engine.asked) - asked <= 6
    assert stage.members() == {"one": ("alive", "80")}
    assert stage.log().count("nodes stay as they are") <= 2  # the end of the stream, then the status
    stage.engine.is_broken = False
    stage.engine.start("two", 81)
    stage.wait(one=("left", "80"), two=("alive", "81"))
    wait_for(lambda: "the engine answers again" in stage.log(), stage.log, 30)


def test_a_companion_that_is_killed_comes_back_unnoticed(stage: Stage) -> None:
    """Its Serf agents end with it, and the next one gives each node its port again."""
    stage.engine.start("one", 80)
    stage.wait(one=("alive", "80"))
    agents = psutil.Process(stage.companion.pid).children()
    assert len(agents) == 1
    stage.companion.send_signal(signal.SIGKILL)
    stage.companion.wait(10)
    wait_for(lambda: not any(one.is_running() and one.status() != "zombie" for one in agents), "they end", 10)
    stage.start()
    wait_for(lambda: stage.log().count("node one joins") == 2, stage.log, 20)
    time.sleep(3.0)
    assert stage.members() == {"one": ("alive", "80")}
    (first, second) = re.findall(r"gossip at port (\d+)", stage.log())
    assert first == second
    assert "is not announced" not in stage.log()
