"""The guard, which holds servers that are lost together: tables and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy.guard import GuardRules, hold

S = 1_000_000_000
NOW_NS = 1_000_000 * S
RULES = GuardRules(share=0.5, window_s=60, hold_s=3600)


def held(ages_s: dict[str, float], standing: int, left_ages_s: tuple[float, ...] = (), **rules: float) -> str:
    """Return the names of the held servers as one word, for servers lost these seconds ago."""
    losses = {name: NOW_NS - int(age_s * S) for name, age_s in ages_s.items()}
    leaves = [NOW_NS - int(age_s * S) for age_s in left_ages_s]
    return "".join(sorted(hold(losses, standing, leaves, RULES._replace(**rules), NOW_NS)))


@pytest.mark.parametrize(
    ("ages_s", "standing", "expected"),
    [
        pytest.param({}, 3, "", id="nothing is lost"),
        pytest.param({"a": 1}, 1, "", id="one of two is half and not more"),
        pytest.param({"a": 1}, 2, "", id="one of three"),
        pytest.param({"a": 1, "b": 1}, 1, "ab", id="two of three"),
        pytest.param({"a": 1, "b": 1}, 2, "", id="two of four"),
        pytest.param({"a": 1, "b": 61}, 1, "ab", id="just one window"),
        pytest.param({"a": 1, "b": 62}, 1, "", id="one after another"),
        pytest.param({"a": 1}, 0, "a", id="the only one"),
        pytest.param({"a": 1, "b": 500}, 0, "a", id="the last one, and not one of long ago"),
        pytest.param({"a": 1, "b": 50, "c": 100}, 1, "abc", id="a chain that is longer than a window"),
        pytest.param({"a": 1, "b": 50, "c": 100}, 3, "", id="a chain of half"),
        pytest.param({"a": 1, "b": 50, "c": 200, "d": 210}, 1, "ab", id="two chains, and the first left three behind"),
        pytest.param({"a": 1, "b": 200, "c": 210, "d": 220}, 1, "bcd", id="two chains, and the second left one behind"),
        pytest.param({"a": 3599, "b": 3598}, 0, "ab", id="just before the end"),
        pytest.param({"a": 3601, "b": 3601}, 0, "", id="after the end"),
        pytest.param({"a": -7200, "b": -7200}, 1, "ab", id="a clock that was set back"),
    ],
)
def test_held_servers(ages_s: dict[str, float], standing: int, expected: str) -> None:
    """More than half of all servers, each lost within a minute of the previous one, are held; so is the last server."""
    assert held(ages_s, standing) == expected


@pytest.mark.parametrize("gap_s", [1, 8, 60])
def test_losses_one_by_one_are_held(gap_s: int) -> None:
    """When a hundred servers are lost one by one and more than half are lost, all are held."""
    losses = {f"web{number}": NOW_NS + number * gap_s * S for number in range(100)}
    rules = RULES._replace(hold_s=86400)
    for lost_count in range(1, 101):
        lost = dict(list(losses.items())[:lost_count])
        is_held = lost_count > 50
        held_s = hold(lost, 100 - lost_count, [], rules, NOW_NS + lost_count * gap_s * S)
        assert held_s.keys() == (lost.keys() if is_held else set())


def test_slow_losses_are_believed() -> None:
    """When a hundred servers are lost further apart than the window, all but the last are removed."""
    losses = {f"web{number}": NOW_NS + number * 61 * S for number in range(100)}
    for lost_count in range(1, 101):
        lost = dict(list(losses.items())[:lost_count])
        held_s = hold(lost, 100 - lost_count, [], RULES, NOW_NS + lost_count * 61 * S)
        assert list(held_s) == (["web99"] if lost_count == 100 else [])


@pytest.mark.parametrize(
    ("left_ages_s", "expected"), [((), "ab"), ((0.5,), ""), ((0.5, 0.5), ""), ((90, 90, 90), "ab"), ((1,), "")]
)
def test_a_leave_does_not_enlarge_a_loss(left_ages_s: tuple[float, ...], expected: str) -> None:
    """A node that left gracefully after the losses began counts as standing."""
    assert held({"a": 1, "b": 1}, 1, left_ages_s) == expected


def test_a_share_of_one_holds_only_all() -> None:
    """With a share of 1, servers are held only when all are lost."""
    assert held({"a": 1, "b": 1, "c": 1}, 1, share=1.0) == ""
    assert held({"a": 1, "b": 1, "c": 1}, 0, share=1.0) == "abc"


def test_a_hold_of_zero_disables_the_guard() -> None:
    """With a hold of 0 seconds no server is held."""
    assert held({"a": 0, "b": 0}, 0, hold_s=0) == ""


def test_a_release_ends_a_hold() -> None:
    """Servers lost before the release are removed; later losses are judged anew."""
    losses = {"a": NOW_NS - 30 * S, "b": NOW_NS - 20 * S, "c": NOW_NS - 10 * S, "d": NOW_NS - 5 * S}
    assert set(hold(losses, 1, [], RULES._replace(released_ns=NOW_NS - 20 * S), NOW_NS)) == {"c", "d"}
    assert hold(losses, 1, [], RULES._replace(released_ns=NOW_NS), NOW_NS) == {}


AGES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4000))


@given(AGES, st.integers(0, 8))
def test_all_of_a_window_or_none(ages_s: dict[str, int], standing: int) -> None:
    """Servers lost in the same second are held together or not at all, and no server is held too long."""
    losses = {name: NOW_NS - age_s * S for name, age_s in ages_s.items()}
    left_s = hold(losses, standing, [], RULES, NOW_NS)
    for name, age_s in ages_s.items():
        assert (name in left_s) == any(ages_s[other] == age_s for other in left_s)
    assert all(left_s[name] == 3600 - ages_s[name] > 0 for name in left_s)


@given(AGES, st.integers(1, 8))
def test_more_standing_servers_never_hold_more(ages_s: dict[str, int], standing: int) -> None:
    """With one more standing server, the guard holds the same servers or fewer."""
    fewer, more = held(dict(ages_s), standing), held(dict(ages_s), standing + 1)
    assert set(more) <= set(fewer)
