"""Questions to other balancers, with a Serf agent that sends all that it says at once."""

import time
from collections.abc import Iterator

import pytest

from fakes.serf_rpc import speak_queries
from fakes.servers import at_once, serving_tcp
from serf_haproxy.autoscale.council import Council
from serf_haproxy.control.asking import ask_balancers
from serf_haproxy.settings import Settings, load_settings


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Yield the settings of a balancer with that Serf agent."""
    with serving_tcp(at_once(speak_queries(lambda nodes, _: dict.fromkeys(nodes, b"ok")))) as (host, port):
        yield load_settings({"SERF_HAPROXY_RPC_ADDR": f"{host}:{port}", "SERF_HAPROXY_SETTINGS_FILE": "/dev/null"})


def test_answers_that_come_with_the_acceptance_are_read(settings: Settings) -> None:
    """A command has its answers at once, not when the time is over."""
    began_s = time.monotonic()
    assert ask_balancers(settings, "lb-ready", "", ["lb1", "lb2"], 30.0) == {"lb1": b"ok", "lb2": b"ok"}
    assert time.monotonic() - began_s < 20
    assert ask_balancers(settings, "lb-ready", "", ["lb1", "lb2"], 30.0).keys() == {"lb1", "lb2"}


def test_the_autoscaler_asks_again(settings: Settings) -> None:
    """A query whose end came with its acceptance is over: the next one can follow."""
    council = Council(settings)
    council.others = ("lb2",)
    council.ask("lb1", time.monotonic())
    assert council.watched() == []
