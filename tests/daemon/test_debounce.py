"""Debouncing of many wakes to one pass, with a clock that the tests choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.daemon.debounce import Debounce

QUIET_S, MAX_WAIT_S = 2.0, 5.0


def debounce_after(*wakes_s: float) -> Debounce:
    """Return a debounce that was woken at these times."""
    debounce = Debounce(QUIET_S, MAX_WAIT_S)
    for now_s in wakes_s:
        debounce.wake(now_s)
    return debounce


@pytest.mark.parametrize(
    ("wakes_s", "due_s"),
    [
        ((), None),
        ((10.0,), 12.0),
        ((10.0, 11.0), 13.0),
        ((10.0, 10.0, 10.0), 12.0),
        ((10.0, 11.5, 13.0), 15.0),
        ((10.0, 11.5, 13.0, 14.5), 15.0),
        ((0.0,), 2.0),
    ],
)
def test_pass_is_due_after_quiet_or_the_longest_wait(wakes_s: tuple[float, ...], due_s: float | None) -> None:
    """A pass is due one quiet time after the last wake, but at most the longest wait after the first."""
    assert debounce_after(*wakes_s).due_s() == due_s


def test_nothing_is_due_after_a_pass() -> None:
    """A pass clears all earlier wakes."""
    debounce = debounce_after(10.0, 11.0)
    debounce.clear()
    assert debounce.due_s() is None


def test_wake_after_a_pass_starts_a_new_wait() -> None:
    """The first wake after a pass starts a new longest wait."""
    debounce = debounce_after(10.0, 14.0)
    debounce.clear()
    for now_s in (14.5, 16.0, 17.5, 19.0):
        debounce.wake(now_s)
    assert debounce.due_s() == 14.5 + MAX_WAIT_S


def test_asking_changes_nothing() -> None:
    """Reading the due time does not change it."""
    debounce = debounce_after(10.0)
    assert [debounce.due_s(), debounce.due_s()] == [12.0, 12.0]


def test_no_quiet_time_means_at_once() -> None:
    """Without a quiet time, a pass is due at the first wake."""
    debounce = Debounce(0.0, 0.0)
    debounce.wake(10.0)
    debounce.wake(11.0)
    assert debounce.due_s() == 10.0


@given(st.lists(st.floats(0, 1e6), min_size=1).map(sorted))
def test_due_time_is_bounded(wakes_s: list[float]) -> None:
    """For any wakes, the pass is due neither before the quiet time nor after the longest wait."""
    due_s = debounce_after(*wakes_s).due_s()
    assert due_s is not None
    assert due_s <= wakes_s[0] + MAX_WAIT_S
    assert due_s >= min(wakes_s[-1] + QUIET_S, wakes_s[0] + MAX_WAIT_S)
