"""An explanation in words."""

from serf_haproxy.policy.cause import Cause
from serf_haproxy.show.document import describe_refused
from serf_haproxy.show.explain import format_explanation


def test_a_measured_weight_is_explained() -> None:
    """What a server with a measured weight gets, of how much, and why."""
    measured = {"weight": 3, "limit": 100, "factor": 0.03, "reason": "it is slow"}
    heard = {"status": None, "at_s": None, "evidence": "roster", "tags": {}, "now": None}
    more = {
        "measured": measured,
        "scaling": None,
        "heard": heard,
        "rule": "R.",
        "settings": [],
        "events": [],
        "would_change": [],
    }
    found = describe_refused("web1", "x") | more | {"total_count": 0, "unchanged_s": None, "haproxy_fault": ""}
    assert "\nmeasured    weight 3, 3% of 100: it is slow\n" in format_explanation(found, 0.0)
    assert found["cause"] == Cause.UNREADABLE
