"""The daemon's connections to the Serf agent: misbehaving agents and what the daemon logs about them."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from fakes.serf_rpc import header, pour_log, say, speak
from fakes.servers import Talk, at_once, be_silent, close_at_once, drip, pour, serving
from integration.agents import run_serf
from integration.proxy import Proxy, wait_for
from integration.test_daemon import COMMAND, log_path, running_daemon, said
from serf_haproxy.serf.wake import wake

USUAL = {"SERF_HAPROXY_RPC_TIMEOUT_S": "0.3", "SERF_HAPROXY_RESYNC_INTERVAL_S": "0.5"}
MISBEHAVIOUR: dict[str, Talk] = {
    "hangs": be_silent,
    "closes": close_at_once,
    "pours": pour,
    "drips": drip,
    "logs without end": pour_log(say(header(2), {"Log": "[DEBUG] memberlist: Stream connection from=127.0.0.1:1"})),
    "hints without end": pour_log(say(header(2), {"Log": "[INFO] serf: EventMemberUpdate: web1"})),
    "logs garbage without end": pour_log(b"x"),
}


def warnings(proxy: Proxy) -> list[str]:
    """Return the warnings about the Serf agent in the daemon's log."""
    lines = log_path(proxy).read_text().splitlines()
    return [line for line in lines if line.startswith("level=WARNING") and "HAProxy keeps its servers" in line]


def await_more(count: Callable[[], int], before: int) -> None:
    """Wait until a count is higher than before."""
    wait_for(lambda: count() > before, "one more line in the log")


def test_once_reports_an_unreachable_serf_agent(proxy: Proxy) -> None:
    """`once` runs its pass from the node files and reports on standard error that Serf cannot be reached."""
    proxy.record("web1", 8001)
    ended = subprocess.run(
        [*COMMAND, "once"], env=os.environ | proxy.environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("APPLIED servers changed: +web1")
    assert "cannot be reached: Connection refused; HAProxy keeps its servers" in ended.stderr


def test_an_outage_is_one_warning(proxy: Proxy) -> None:
    """A Serf agent that does not start in time is one warning, and so is each outage; a late start is none."""
    host, port = proxy.settings.rpc_addr
    with running_daemon(proxy, **USUAL):
        assert said(proxy, "level=INFO msg=\"Serf's RPC at")
        assert warnings(proxy) == []
        wait_for(lambda: warnings(proxy), "the warning that it does not start", 40)
        for _ in range(2):
            told_count, answer_count = len(warnings(proxy)), log_path(proxy).read_text().count("Serf answers")
            with run_serf("lb1", host, port, "role=balancer"):
                await_more(lambda: log_path(proxy).read_text().count("Serf answers"), answer_count)
            await_more(lambda: len(warnings(proxy)), told_count)
    assert len(warnings(proxy)) == 3


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (speak({"handshake": lambda seq: say(header(seq, "not today"))}), "refused handshake: not today"),
        (pour, "sent int, not a map"),
        (be_silent, "gave no answer to handshake"),
    ],
)
def test_a_faulty_serf_agent_is_one_warning_at_once(proxy: Proxy, talk: Talk, words: str) -> None:
    """A Serf agent that refuses, hangs or sends garbage is logged as one warning, at the first failure."""
    with serving(socket.create_server(proxy.settings.rpc_addr), at_once(talk)), running_daemon(proxy, **USUAL):
        assert words in warnings(proxy)[0]
        proxy.record("web1", 8001)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: proxy.servers() == {"web1"}, "web1 is served")
        assert len(warnings(proxy)) == 1


@pytest.mark.parametrize("talk", MISBEHAVIOUR.values(), ids=MISBEHAVIOUR)
def test_a_misbehaving_serf_agent_delays_no_event(proxy: Proxy, talk: Talk) -> None:
    """With hints and a misbehaving Serf agent, events are handled and SIGTERM ends the daemon."""
    with (
        serving(socket.create_server(proxy.settings.rpc_addr), at_once(talk)),
        running_daemon(proxy, **USUAL) as process,
    ):
        for number in range(1, 4):
            proxy.record(f"web{number}", 8001)
            assert wake(proxy.settings.wake_fifo)
            wait_for(lambda name=f"web{number}": name in proxy.servers(), f"web{number} is served")
        process.terminate()
        assert process.wait(20) == 0


BROKEN_CLIENT = """
import sys
from serf_haproxy.cli.main import main
from serf_haproxy.serf import client
def fail(*_arguments): raise AssertionError("a fault of our own")
{patch}
sys.argv = ["serf-haproxy", "run"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param("client.Connection.__init__ = fail", id="connecting"),
        pytest.param("client.Connection.read_roster = fail", id="asking"),
        pytest.param("client.Monitor.read_hint = fail", id="listening"),
        pytest.param("import selectors; selectors.PollSelector.select = fail", id="waiting"),
    ],
)
def test_no_fault_of_asking_ends_the_daemon(proxy: Proxy, patch: str) -> None:
    """Whatever goes wrong while the daemon asks Serf, events are handled and each fault is followed by a pause."""
    talk = pour_log(say(header(2), {"Log": "[INFO] serf: EventMemberUpdate: web1"}))
    command = [sys.executable, "-c", BROKEN_CLIENT.format(patch=patch)]
    with (
        serving(socket.create_server(proxy.settings.rpc_addr), at_once(talk)),
        running_daemon(proxy, command, **USUAL) as process,
    ):
        wait_for(lambda: said(proxy, "a fault of our own"), "the fault is logged")
        for number in range(1, 3):
            proxy.record(f"web{number}", 8001)
            wake(proxy.settings.wake_fifo)
            wait_for(lambda name=f"web{number}": name in proxy.servers(), f"web{number} is served")
        assert process.poll() is None
        assert log_path(proxy).read_text().count("an internal error") < 40
        process.terminate()
        assert process.wait(20) == 0
