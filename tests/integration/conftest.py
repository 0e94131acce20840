"""Fixtures of the tests with a real HAProxy, Serf and s6."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import workers
from conftest import StartSerf
from integration.balancer import Balancer, running_balancer
from integration.proxy import Proxy, running_proxy

_MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")


@pytest.fixture
def proxy(short_dir: Path) -> Iterator[Proxy]:
    """Yield a real HAProxy that runs a configuration without servers."""
    with running_proxy(short_dir) as running:
        yield running


@pytest.fixture
def balancer(start_serf: StartSerf) -> Iterator[Balancer]:
    """Yield a balancer on which nothing is wrong."""
    with running_balancer(start_serf) as running:
        yield running


@pytest.fixture
def migrating() -> Iterator[None]:
    """Have the kernel give connections that a closed listener has not accepted to another one, as the documents advise.

    The setting counts for the whole machine: only one test at a time has it. Only root can change it.
    """
    with workers.locked("tcp_migrate_req"):
        before = _MIGRATE.read_text()
        _MIGRATE.write_text("1")
        try:
            yield
        finally:
            _MIGRATE.write_text(before)
