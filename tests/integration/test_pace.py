"""How often HAProxy really checks servers, counted at a listener."""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import probe
from fakes.web import answering
from integration.proxy import Proxy, wait_for
from integration.test_load import start_application, wait_application
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.state import State
from serf_haproxy.settings import Settings


class Counter:
    """A listener that closes every connection without an answer, and counts them."""

    def __init__(self) -> None:
        self.connection_count = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._listener.accept()[0].close()
                self.connection_count += 1

    def measure(self, for_s: float) -> float:
        """Return the connections a second during some time."""
        before, started_s = self.connection_count, time.monotonic()
        time.sleep(for_s)
        return (self.connection_count - before) / (time.monotonic() - started_s)

    def close(self) -> None:
        """Close the listener."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def counting() -> Iterator[Counter]:
    """Count connections for the duration of a block."""
    counter = Counter()
    try:
        yield counter
    finally:
        counter.close()


def age(settings: Settings, by_s: float) -> None:
    """Let the files say that all servers that are down went down earlier."""
    path = Path(State(settings.state_dir).record_path)
    record = json.loads(path.read_text())
    for pace in record["checks"][2]:
        pace[3] -= int(by_s * 1e9)
    path.write_text(json.dumps(record))
    for file in Path(settings.nodes_dir).iterdir():
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - by_s))


def settle(proxy: Proxy) -> None:
    """Make passes until nothing is left to do."""
    wait_for(lambda: proxy.run_pass().verdict is Verdict.UNCHANGED, "nothing to do")


def test_invented_members_at_one_place_cost_few_connections(proxy: Proxy) -> None:
    """Twenty members at one port that answers nothing: less than 220 attempts a second, later less than 5."""
    with counting() as counter:
        for number in range(20):
            proxy.record(f"web{number:02}", counter.port)
        settle(proxy)
        first = counter.measure(1.5)
        age(proxy.settings, 40)
        settle(proxy)
        second = counter.measure(1.5)
        age(proxy.settings, 400)
        settle(proxy)
        time.sleep(0.5)
        third = counter.measure(7)
    print(f"connections a second: {first:.0f}, after 30 s {second:.0f}, after 5 min {third:.1f}")
    assert 20 < first < 220
    assert 5 < second < 55
    assert 0 < third < 5
    assert proxy.reload_count() == 0


def test_two_thousand_members_that_answer_nothing_stay_within_the_limit(proxy: Proxy) -> None:
    """All checks together are less than 400 a second from the start."""
    with counting() as counter:
        for number in range(2000):
            proxy.record(f"web{number:04}", counter.port)
        settle(proxy)
        rate = counter.measure(15)  # each server is checked every 12.8 s
    print(f"connections a second: {rate:.0f}")
    assert 20 < rate < 400


def test_a_server_that_was_down_for_long_comes_back_without_a_reload(proxy: Proxy) -> None:
    """It is up within its longer interval, and checked quickly when it goes down again."""
    with counting() as counter:
        port = counter.port
        proxy.record("web1", port)
        settle(proxy)
        for by_s in (40, 400):
            age(proxy.settings, by_s)
            settle(proxy)
    line = rf"^ *server web1 127\.0\.0\.1:{port} .*downinter 6400ms"
    assert re.search(line, probe.read_live(proxy.settings) or "", re.MULTILINE)
    application = start_application("127.0.0.1", port)
    try:
        wait_application("127.0.0.1", port)
        wait_for(lambda: (probe.read_servers(proxy.settings) or {})["web1"].status == "UP", "web1 is up")
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
    finally:
        application.kill()
        application.wait(20)
    wait_for(lambda: (probe.read_servers(proxy.settings) or {})["web1"].status == "DOWN", "web1 is down")
    assert proxy.run_pass().verdict is Verdict.APPLIED
    assert "downinter 6400ms" not in (probe.read_live(proxy.settings) or "")
    assert proxy.reload_count() == 0


def test_many_servers_that_are_up_are_checked_less_often(proxy: Proxy) -> None:
    """The interval of all grows by a reload once they have been up; each further server then needs none."""
    names = [f"web{number:02}" for number in range(20)]
    with answering() as web:
        for name in names:
            proxy.record(name, web.port)
        assert proxy.run_pass(checks_per_s=10).verdict is Verdict.APPLIED
        proxy.wait_up(*names)
        assert proxy.run_pass(checks_per_s=10).verdict is Verdict.RELOADED
        assert "check inter 4s " in (probe.read_live(proxy.settings) or "")
        proxy.record("web00", web.port, status="left")
        assert proxy.run_pass(checks_per_s=10).verdict is Verdict.APPLIED
        assert "check inter 4s " in (probe.read_live(proxy.settings) or "")
