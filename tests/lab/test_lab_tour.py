"""The judgement on a step of the tour."""

import pytest

from serf_haproxy.lab.cluster import Lab
from serf_haproxy.lab.tour_checks import Finding, Step, has_weights, judge
from serf_haproxy.lab.tour_steps import STEP_COUNT, list_steps

SERVERS = {"api1": "127.0.1.41", "api2": "127.0.1.42", "api3": "127.0.1.43"}
STEP = Step(
    "a drain",
    lambda: None,
    SERVERS,
    "",
    percents={"api1": 0, "api2": 95, "api3": 5},
    forbids_reload=True,
    ask_sticky=lambda: "",
    home="api1",
)
GOOD = Finding(frozenset(SERVERS), {"127.0.1.42": 114, "127.0.1.43": 6}, {"127.0.1.41": 20})


def test_shares_within_the_tolerance_are_right() -> None:
    """Each server may differ from its share by three percentage points."""
    assert judge(STEP, GOOD) == []
    assert judge(STEP, GOOD._replace(shares={"127.0.1.42": 111, "127.0.1.43": 9})) == []


@pytest.mark.parametrize(
    ("finding", "words"),
    [
        (GOOD._replace(servers=frozenset({"api2", "api3"})), "HAProxy has ['api2', 'api3'] instead of"),
        (GOOD._replace(shares={"127.0.1.42": 110, "127.0.1.43": 10}), "the shares of 120 requests are"),
        (GOOD._replace(shares={"127.0.1.42": 60, "127.0.1.43": 60}), "the shares of 120 requests are"),
        (GOOD._replace(shares={"127.0.1.42": 120}), "requests were answered by"),
        (GOOD._replace(shares=dict(GOOD.shares) | {"127.0.1.41": 1}), "requests were answered by"),
        (GOOD._replace(shares=dict(GOOD.shares) | {"failed": 1}), "requests were answered by"),
        (
            GOOD._replace(sticky={"127.0.1.41": 19, "127.0.1.42": 1}),
            "the client with the cookie of api1 was answered by",
        ),
        (GOOD._replace(sticky={"": 20}), "the client with the cookie of api1 was answered by"),
        (GOOD._replace(lost_count=1), "1 requests failed during the change"),
        (GOOD._replace(reload_count=2), "HAProxy was reloaded 2 times"),
    ],
)
def test_each_fault_is_one_line(finding: Finding, words: str) -> None:
    """What is not as the step says makes one line."""
    (fault,) = judge(STEP, finding)
    assert fault.startswith(words)


def test_weights_follow_the_shares() -> None:
    """A change is in force when each server has the weight of its share; without shares all have the same."""
    assert has_weights(STEP, {"api1": 0, "api2": 19, "api3": 1})
    assert not has_weights(STEP, {"api1": 0, "api2": 1, "api3": 1})
    assert not has_weights(STEP, {"api2": 19, "api3": 1})
    even = STEP._replace(percents={})
    assert has_weights(even, {"api1": 1, "api2": 1, "api3": 1})
    assert not has_weights(even, {"api1": 1, "api2": 1, "api3": 0})
    assert not has_weights(even, {})


def test_the_tour_says_how_many_steps_it_has() -> None:
    """The number in the first lines of the tour is that of its steps."""
    assert len(list(list_steps(Lab("/nowhere")))) == STEP_COUNT
