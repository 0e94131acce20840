"""Flapping nodes: penalties, damping, release."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy.damping import Flap, FlapRules, damp, update

RULES = FlapRules(cutoff=4, half_life_s=60)
NAMES = ("a", "b", "c")


def flap(times: int, gap_s: float = 1.0, flaps: dict[str, Flap] | None = None) -> tuple[dict[str, Flap], float]:
    """Let one of three nodes fail and return several times; return the flap records and the time."""
    flaps, now_s = flaps or {}, 1000.0
    for _ in range(times):
        for is_alive in (False, True):
            now_s += gap_s
            flaps = update(flaps, dict.fromkeys(NAMES, True) | {"a": is_alive}, RULES, now_s)
    return flaps, now_s


def damped(flaps: dict[str, Flap], now_s: float, serving: tuple[str, ...] = NAMES) -> dict[str, float]:
    """Return which of these nodes are damped."""
    return damp(flaps, dict.fromkeys(serving), RULES, now_s)


def test_a_join_is_not_a_flap() -> None:
    """Nodes that join and stay have no flap record."""
    assert update({}, dict.fromkeys(NAMES, True), RULES, 1000.0) == {}


def test_one_restart_is_forgotten() -> None:
    """A node that failed and returned once serves at once, and its record is dropped after some half-lives."""
    flaps, now_s = flap(1)
    assert flaps["a"].penalty == pytest.approx(2.0, abs=0.1)
    assert damped(flaps, now_s) == {}
    assert update(flaps, dict.fromkeys(NAMES, True), RULES, now_s + 600) == {}


def test_the_third_return_in_a_row_is_damped_until_half_the_cutoff() -> None:
    """A node is damped at the cutoff and released below half of it, exactly at the predicted time."""
    flaps, now_s = flap(3)
    (left_s,) = damped(flaps, now_s).values()
    assert 80 < left_s < 100
    now_s += left_s - 0.1
    flaps = update(flaps, dict.fromkeys(NAMES, True), RULES, now_s)
    assert damped(flaps, now_s)
    now_s += 0.2
    flaps = update(flaps, dict.fromkeys(NAMES, True), RULES, now_s)
    assert damped(flaps, now_s) == {}
    assert not flaps["a"].is_damped


def test_slow_restarts_are_not_damped() -> None:
    """A node that restarts every few minutes is never damped."""
    flaps, now_s = flap(20, gap_s=120)
    assert damped(flaps, now_s) == {}


def test_damping_ends_after_three_half_lives() -> None:
    """However often a node flapped, it is released three half-lives after the last flap."""
    flaps, now_s = flap(1000, gap_s=0.01)
    (left_s,) = damped(flaps, now_s).values()
    assert left_s <= 180


def test_a_clock_that_was_set_back_does_not_extend_damping() -> None:
    """A flap dated in the future counts as a flap of now."""
    flaps, now_s = flap(3)
    flaps = update(flaps, dict.fromkeys(NAMES, True), RULES, now_s - 86400)
    (left_s,) = damped(flaps, now_s - 86400).values()
    assert left_s <= 180


def test_the_penalty_of_a_removed_node_is_kept_while_it_matters() -> None:
    """A node whose file was removed keeps its penalty when it returns soon, and has none when it returns late."""
    flaps = update({}, {"a": False}, RULES, 1000.0)
    flaps = update(flaps, {}, RULES, 1001.0)
    assert flaps["a"].penalty == 1.0
    soon = update(flaps, {"a": True}, RULES, 1002.0)
    assert soon["a"].penalty == pytest.approx(2.0, abs=0.1)
    assert update(flaps, {}, RULES, 1600.0) == {}


def test_a_graceful_leave_is_not_a_flap() -> None:
    """A node that leaves and returns, however often, has no flap record."""
    flaps: dict[str, Flap] = {}
    for number in range(20):
        flaps = update(flaps, {"a": True} if number % 2 else {}, RULES, 1000.0 + number)
        assert flaps == {}


def test_a_cutoff_of_zero_disables_damping() -> None:
    """With a cutoff of 0 there are no flap records and no damped nodes."""
    assert update({"a": Flap(9, 1000, True, True)}, {"a": True}, FlapRules(0), 1001) == {}


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 16)), st.sets(st.sampled_from("abcdef")))
def test_at_least_half_of_the_nodes_serve(penalties: dict[str, float], serving: set[str]) -> None:
    """Damping removes at most half of the nodes that could serve, those with the highest penalty first."""
    flaps = {name: Flap(penalty, 1000.0, True, True) for name, penalty in penalties.items()}
    out = damp(flaps, dict.fromkeys(serving), RULES, 1000.0)
    assert 2 * len(out) <= len(serving)
    kept = [penalties[name] for name in serving - out.keys() if penalties.get(name, 0) > RULES.cutoff / 2]
    assert all(penalties[name] >= penalty for name in out for penalty in kept)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.floats(0, 100)), max_size=40))
def test_a_second_look_changes_nothing(looks: list[tuple[str, bool, float]]) -> None:
    """A second update at the same time changes no record."""
    flaps: dict[str, Flap] = {}
    now_s, alive = 1000.0, {"a": True, "b": True}
    for name, is_alive, gap_s in looks:
        now_s, alive = now_s + gap_s, alive | {name: is_alive}
        flaps = update(flaps, alive, RULES, now_s)
        assert update(flaps, alive, RULES, now_s) == flaps
