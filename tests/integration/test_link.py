"""The resident's connections to Serf: agents that misbehave beside the events, and what the log says of them."""

import socket

import pytest

from fakes.serf_rpc import header, pour_log, say
from fakes.servers import Talk, at_once, be_silent, close_at_once, drip, pour, serving
from integration.proxy import Proxy, wait_for
from integration.test_resident import resident
from serf_haproxy.nodes import wake

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
