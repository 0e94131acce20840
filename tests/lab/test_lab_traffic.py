"""The sums of requests to a lab."""

import math

from serf_haproxy.lab.clients import Answer
from serf_haproxy.lab.traffic import sum_up

NAMES = {"127.0.1.1": "web1", "127.0.1.2": "web2"}


def test_failures_take_infinitely_long() -> None:
    """A percentile counts failures as the slowest requests; in JSON an infinite latency is null."""
    good = [Answer(0.0, 0.0, (number + 1) / 1000, "127.0.1.1", 0, "") for number in range(98)]
    bad = [Answer(0.0, 0.0, server="127.0.1.2", fault="500"), Answer(0.0, 0.006)]
    found = sum_up(good + bad, NAMES)
    assert (found.percentile(50), found.percentile(98), found.percentile(99)) == (50.0, 98.0, math.inf)
    assert found.to_json() == {
        "requests": 100,
        "failed": {"500": 1, "no answer": 1},
        "late": 1,
        "shares": {"web1": 98, "web2": 1},
        "p50_ms": 50.0,
        "p90_ms": 90.0,
        "p99_ms": None,
    }
    assert "100 requests, 2 failed (1 x 500, 1 x no answer)" in found.format()
    assert "p99 ∞" in found.format()


def test_no_request_has_no_latency() -> None:
    """The sums of nothing can be shown."""
    assert sum_up([], NAMES).percentile(99) == math.inf
    assert "0 requests" in sum_up([], NAMES).format()
