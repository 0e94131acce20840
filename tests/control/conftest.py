"""A real HAProxy for the tests of the pass."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.proxy import Proxy, running_proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Return a real HAProxy that runs the configuration without nodes."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory, running_proxy(Path(directory)) as running:
        yield running
