"""The site that the tests of a module share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from standby.site import Site, running_site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Yield two balancers that are ready, one of them with the address."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory, running_site(Path(directory)) as running:
        yield running
