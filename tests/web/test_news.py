"""The line by which the daemon tells of a pass."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.web.news import LINE_BYTES, News, format_news, parse_news

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**40)
NEWS = st.builds(News, FLOATS, FLOATS, st.sampled_from(["APPLIED", "ERROR"]), *[st.booleans()] * 2, COUNTS, COUNTS)


@given(NEWS)
def test_news_come_back(news: News) -> None:
    """A line says what was told, and a pipe takes it as a whole."""
    line = format_news(news)
    assert parse_news(line) == news
    assert line.endswith(b"\n")
    assert len(line) <= LINE_BYTES


@pytest.mark.parametrize("line", [b"", b"\n", b"[]", b"{}", b"[1,2]", b'["a","b","c"]', b'[NaN,0,""]', b"\xff", b"7"])
def test_damaged_news_are_none(line: bytes) -> None:
    """Anything else is no news."""
    assert parse_news(line) is None


def test_the_daemon_loads_nothing_of_the_web() -> None:
    """What serves and counts is loaded by the web process alone."""
    script = "import sys, serf_haproxy.daemon.loop; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "serf_haproxy.web.news" in loaded
    assert {"prometheus_client", "asyncio", "http", "serf_haproxy.web.metrics"}.isdisjoint(loaded)
