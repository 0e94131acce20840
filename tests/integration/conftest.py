"""Fixtures of the tests with a real HAProxy, Serf and s6."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.proxy import Proxy, running_proxy


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Yield a directory whose path is short enough for Unix sockets (107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def proxy(short_dir: Path) -> Iterator[Proxy]:
    """Yield a real HAProxy that runs a configuration without servers."""
    with running_proxy(short_dir) as running:
        yield running
