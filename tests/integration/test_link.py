"""The resident's connections to Serf: agents that misbehave beside the events, and what the log says of them."""

import os
import socket
import subprocess
from collections.abc import Callable

import pytest

from fakes.serf_rpc import header, pour_log, say, speak
from fakes.servers import Talk, at_once, be_silent, close_at_once, drip, pour, serving
from integration.agents import run_serf
from integration.proxy import Proxy, wait_for
from integration.test_resident import COMMAND, log_path, resident, said
from serf_haproxy.serf.wake import wake

USUAL = {"SERF_HAPROXY_RPC_TIMEOUT_S": "0.3", "SERF_HAPROXY_RESYNC_INTERVAL_S": "0.5"}
MISBEHAVIOUR: dict[str, Talk] = {
    "hangs": be_silent,
    "closes": close_at_once,
    "pours": pour,
    "drips": drip,
    "logs without end": pour_log(say(header(2), {"Log": "[DEBUG] memberlist: Stream connection from=127.0.0.1:1"})),
    "hints without end": pour_log(say(header(2), {"Log": "[INFO] serf: EventMemberUpdate: web1"})),
    "logs rubbish without end": pour_log(b"x"),
}


def warnings(proxy: Proxy) -> list[str]:
    """Return the warnings about Serf in the resident's log."""
    lines = log_path(proxy).read_text().splitlines()
    return [line for line in lines if line.startswith("level=WARNING") and "what HAProxy has stays as it is" in line]


def await_more(count: Callable[[], int], before: int) -> None:
    """Wait until something is counted that was not there before."""
    wait_for(lambda: count() > before, "one more line in the log")


def test_one_pass_without_serf_says_so(proxy: Proxy) -> None:
    """`once` makes its pass from the node files and tells on its standard error that Serf was not asked."""
    proxy.record("web1", 8001)
    ended = subprocess.run(
        [*COMMAND, "once"], env=os.environ | proxy.environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("APPLIED servers changed: +web1")
    assert "cannot be reached: Connection refused; what HAProxy has stays as it is" in ended.stderr


def test_an_outage_is_a_warning_once(proxy: Proxy) -> None:
    """An agent that has not started yet is no warning, one that does not come is; so is each outage, told once."""
    host, port = proxy.settings.rpc_addr
    with resident(proxy, **USUAL):
        assert said(proxy, "level=INFO msg=\"Serf's RPC at")
        assert warnings(proxy) == []
        wait_for(lambda: warnings(proxy), "the warning that it does not come", 40)
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
def test_an_agent_that_is_wrong_is_a_warning_at_once(proxy: Proxy, talk: Talk, words: str) -> None:
    """An agent that is there and refuses, hangs or talks nonsense is told as a warning at the first time, and once."""
    with serving(socket.create_server(proxy.settings.rpc_addr), at_once(talk)), resident(proxy, **USUAL):
        assert words in warnings(proxy)[0]
        proxy.record("web1", 8001)
        wake(proxy.settings.wake_fifo)
        wait_for(lambda: proxy.servers() == {"web1"}, "web1 is served")
        assert len(warnings(proxy)) == 1


@pytest.mark.parametrize("talk", MISBEHAVIOUR.values(), ids=MISBEHAVIOUR)
def test_whatever_serf_does_events_count(proxy: Proxy, talk: Talk) -> None:
    """With hints, as usual, and an agent that misbehaves in any way, events are followed and a signal ends it."""
    with serving(socket.create_server(proxy.settings.rpc_addr), at_once(talk)), resident(proxy, **USUAL) as process:
        for number in range(1, 4):
            proxy.record(f"web{number}", 8001)
            assert wake(proxy.settings.wake_fifo)
            wait_for(lambda name=f"web{number}": name in proxy.servers(), f"web{number} is served")
        process.terminate()
        assert process.wait(20) == 0
