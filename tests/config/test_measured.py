"""Measured weights in the comparison of what runs with what should, and in the file that a reload gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.config.diff import diff, find_differences, sign, weigh
from serf_haproxy.config.parse import Layout, Line
from serf_haproxy.config.render import Config
from serf_haproxy.config.state_file import format_state
from serf_haproxy.policy.snapshot import UP, Seen

KEY = ("nodes", "web1")
HEADER = "# srv_name srv_uweight srv_iweight"


def layout(weight: int, is_measured: bool = True, is_split: bool = False) -> Layout:
    """Return a configuration of one server."""
    servers = {KEY: Line("10.0.0.1:80", weight, ("check",))}
    return Layout(servers, frozenset(["nodes"]), "", measured={"nodes": is_split} if is_measured else {})


def seen(weight: int) -> Seen:
    """Return the server as it runs."""
    return Seen("10.0.0.1:80", weight, False, False, False, UP, 0, 0, f"web1 {weight} 100")


@pytest.mark.parametrize(
    ("before", "limit", "running", "weight"),
    [
        (100, 100, 100, 100),
        (100, 100, 7, 7),
        (100, 100, 101, 100),
        (100, 100, 0, 100),
        (100, 0, 7, 0),
        (0, 100, 0, 100),
        (100, 50, 8, 4),
        (100, 50, 1, 1),
        (50, 100, 50, 100),
        (1, 100, 1, 100),
    ],
    ids=["whole", "part", "too much", "drained by hand", "drain", "back", "less", "least", "more", "newly measured"],
)
def test_a_server_keeps_its_part_of_the_limit(before: int, limit: int, running: int, weight: int) -> None:
    """A weight from 1 to the limit is right; if the limit changes, the part of it stays, and a drain is a drain."""
    goal = layout(limit)
    assert weigh(goal, layout(before), KEY, seen(running)) == weight
    expected = () if weight == running else (f"set server nodes/web1 weight {weight}",)
    assert diff(goal, layout(before), {KEY: seen(running)}).commands == expected


@given(*[st.integers(0, 256)] * 3)
def test_no_weight_exceeds_the_limit(before: int, limit: int, running: int) -> None:
    """Whatever ran and whatever the limit was, a pass and a reload give a server no more than its limit now."""
    goal, former = layout(limit), layout(before)
    assert weigh(goal, former, KEY, seen(running)) <= limit
    written = format_state(Config("", "", goal), {KEY: False}, {KEY: seen(running)}, HEADER, former)
    assert int(written.splitlines()[2].split()[1]) <= limit


@pytest.mark.parametrize(
    ("before", "given", "running", "weight"),
    [(100, 100, 7, 7), (100, 100, 193, 193), (100, 100, 0, 100), (100, 50, 193, 50), (100, 0, 7, 0), (1, 100, 1, 100)],
    ids=["less", "more", "drained by hand", "another part", "drain", "newly measured"],
)
def test_with_a_split_a_server_may_have_more(before: int, given: int, running: int, weight: int) -> None:
    """Any weight but 0 is right, since the loop keeps the total; where the split gives another one, it is that."""
    goal, former = layout(given, is_split=True), layout(before, is_split=True)
    assert weigh(goal, former, KEY, seen(running)) == weight
    expected = () if weight == running else (f"set server nodes/web1 weight {weight}",)
    assert diff(goal, former, {KEY: seen(running)}).commands == expected


def test_without_measured_weights_only_the_line_counts() -> None:
    """A weight below the line's is a drift, and is corrected."""
    assert diff(layout(100, False), layout(100, False), {KEY: seen(7)}).commands == (
        "set server nodes/web1 weight 100",
    )


def test_a_measured_weight_is_no_difference() -> None:
    """A server that a reload cannot mend keeps its signature whatever it weighs: no further reload is made for it."""
    goal = layout(100)
    assert find_differences(goal, {KEY: seen(7)}) == {}
    assert sign(goal, KEY, seen(7)) == sign(goal, KEY, seen(100)) != sign(goal, KEY, seen(0))


def test_a_reload_keeps_the_part() -> None:
    """The state file has the weight in use and the limit: HAProxy keeps the first while the second is in the file."""
    goal, running = Config("", "", layout(100)), {KEY: seen(7)}
    assert format_state(goal, {KEY: False}, running, HEADER, layout(100)).splitlines()[2:] == ["web1 7 100"]
    goal = Config("", "", layout(50))
    assert format_state(goal, {KEY: False}, {KEY: seen(8)}, HEADER, layout(100)).splitlines()[2:] == ["web1 4 50"]
