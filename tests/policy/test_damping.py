"""Nodes that fail and come back: penalties, damping, release."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy.damping import Flap, FlapRules, damp, update

RULES = FlapRules(cutoff=4, half_life_s=60)
NAMES = ("a", "b", "c")


def flap(times: int, gap_s: float = 1.0, flaps: dict[str, Flap] | None = None) -> tuple[dict[str, Flap], float]:
    """Let one of three nodes go and come back so many times; return what is remembered, and the time."""
    flaps, now_s = flaps or {}, 1000.0
    for _ in range(times):
        for is_alive in (False, True):
            now_s += gap_s
            flaps = update(flaps, dict.fromkeys(NAMES, True) | {"a": is_alive}, RULES, now_s)
    return flaps, now_s


def damped(flaps: dict[str, Flap], now_s: float, serving: tuple[str, ...] = NAMES) -> dict[str, float]:
    """Return what is damped of these."""
    return damp(flaps, dict.fromkeys(serving), RULES, now_s)


def test_a_join_is_no_flap() -> None:
    """Nodes that have come and stay are not remembered at all."""
    assert update({}, dict.fromkeys(NAMES, True), RULES, 1000.0) == {}


def test_one_restart_is_forgotten() -> None:
    """A node that went and came once is in use at once, and forgotten after some half-lives."""
    flaps, now_s = flap(1)
    assert flaps["a"].penalty == pytest.approx(2.0, abs=0.1)
    assert damped(flaps, now_s) == {}
    assert update(flaps, dict.fromkeys(NAMES, True), RULES, now_s + 600) == {}


def test_the_third_return_in_a_row_is_damped_until_it_was_steady() -> None:
    """At the cutoff a node is kept out; below half of it, it is let in, exactly when it was said."""
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
    """A node that restarts every few minutes is never kept out."""
    flaps, now_s = flap(20, gap_s=120)
    assert damped(flaps, now_s) == {}


def test_nobody_is_kept_out_for_ever() -> None:
    """However often a node flapped, it is let in three half-lives after the last time."""
    flaps, now_s = flap(1000, gap_s=0.01)
    (left_s,) = damped(flaps, now_s).values()
    assert left_s <= 180


def test_a_clock_that_was_set_back_keeps_nobody_out_for_longer() -> None:
    """The time of the last flap is never in the future."""
    flaps, now_s = flap(3)
    flaps = update(flaps, dict.fromkeys(NAMES, True), RULES, now_s - 86400)
    (left_s,) = damped(flaps, now_s - 86400).values()
    assert left_s <= 180


def test_a_node_that_is_gone_is_remembered_while_it_matters() -> None:
    """A node whose file is gone still has its penalty when it comes back soon, and none when it comes back late."""
    flaps = update({}, {"a": False}, RULES, 1000.0)
    flaps = update(flaps, {}, RULES, 1001.0)
    assert flaps["a"].penalty == 1.0
    soon = update(flaps, {"a": True}, RULES, 1002.0)
    assert soon["a"].penalty == pytest.approx(2.0, abs=0.1)
    assert update(flaps, {}, RULES, 1600.0) == {}


def test_a_graceful_leave_is_no_flap() -> None:
    """A node that leaves and comes back, however often, is not remembered."""
    flaps: dict[str, Flap] = {}
    for number in range(20):
        flaps = update(flaps, {"a": True} if number % 2 else {}, RULES, 1000.0 + number)
        assert flaps == {}


def test_a_cutoff_of_zero_switches_it_off() -> None:
    """Nothing is remembered and nobody damped."""
    assert update({"a": Flap(9, 1000, True, True)}, {"a": True}, FlapRules(0), 1001) == {}


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 16)), st.sets(st.sampled_from("abcdef")))
def test_half_of_a_pool_always_serves(penalties: dict[str, float], serving: set[str]) -> None:
    """Damping never takes more than half of the nodes that could serve, and the worst first."""
    flaps = {name: Flap(penalty, 1000.0, True, True) for name, penalty in penalties.items()}
    out = damp(flaps, dict.fromkeys(serving), RULES, 1000.0)
    assert 2 * len(out) <= len(serving)
    kept = [penalties[name] for name in serving - out.keys() if penalties.get(name, 0) > RULES.cutoff / 2]
    assert all(penalties[name] >= penalty for name in out for penalty in kept)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.floats(0, 100)), max_size=40))
def test_looking_again_changes_nothing(looks: list[tuple[str, bool, float]]) -> None:
    """A second look at the same moment finds what the first one left."""
    flaps: dict[str, Flap] = {}
    now_s, alive = 1000.0, {"a": True, "b": True}
    for name, is_alive, gap_s in looks:
        now_s, alive = now_s + gap_s, alive | {name: is_alive}
        flaps = update(flaps, alive, RULES, now_s)
        assert update(flaps, alive, RULES, now_s) == flaps
