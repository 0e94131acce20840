"""When the next pass is due: the clock is a number that the tests choose."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.control.outcome import Outcome, Pause, Verdict
from serf_haproxy.daemon.schedule import RETRY_CHEAP_MAX_S, Intervals, Schedule

QUIET_S, MAX_WAIT_S, RESYNC_S, RELOAD_S, RETRY_MAX_S = 2.0, 5.0, 1e9, 20.0, 300.0
INTERVALS = Intervals(QUIET_S, MAX_WAIT_S, RESYNC_S, RELOAD_S, RETRY_MAX_S)
UNCHANGED = Outcome(Verdict.UNCHANGED, "as before", "")
REJECTED = Outcome(Verdict.REJECTED, "a wrong template", "")
RELOADED = Outcome(Verdict.RELOADED, "servers changed", "", has_reloaded=True)
FAILED = Outcome(Verdict.UNCONFIRMED, "a port is taken", "", has_reloaded=True, is_costly=True, rest="0123")


def schedule_after(*wakes_s: float, intervals: Intervals = INTERVALS) -> Schedule:
    """Return a schedule after a pass at time 0 that heard from Serf, woken at these times."""
    schedule = Schedule(intervals)
    end(schedule, 0.0, UNCHANGED, has_roster=True)
    for now_s in wakes_s:
        schedule.wake(now_s)
    return schedule


def end(schedule: Schedule, now_s: float, outcome: Outcome, *, has_roster: bool = False) -> None:
    """Make a pass at a time."""
    schedule.begin(now_s)
    schedule.end(now_s, Outcome(**(vars(outcome) | {"has_roster": has_roster})))


@pytest.mark.parametrize(
    ("wakes_s", "due_s"),
    [
        ((), RESYNC_S),
        ((10.0,), 12.0),
        ((10.0, 11.0), 13.0),
        ((10.0, 10.0, 10.0), 12.0),
        ((10.0, 11.5, 13.0), 15.0),
        ((10.0, 11.5, 13.0, 14.5), 15.0),
        ((0.0,), 2.0),
    ],
)
def test_pass_is_due_after_quiet_or_the_longest_wait(wakes_s: tuple[float, ...], due_s: float) -> None:
    """A pass is due a quiet time after the last wake, but no later than the longest wait after the first."""
    schedule = schedule_after(*wakes_s)
    assert schedule.due_s() == due_s
    assert schedule.is_pass_due(due_s)
    assert not schedule.is_pass_due(due_s - 0.001)


def test_nothing_is_due_after_a_pass() -> None:
    """When a pass begins, all wakes so far are answered."""
    schedule = schedule_after(10.0, 11.0)
    schedule.begin(12.0)
    assert not schedule.is_pass_due(1000.0)


def test_wake_after_a_pass_starts_anew() -> None:
    """The first wake after a pass has the whole longest wait before it again."""
    schedule = schedule_after(10.0, 14.0)
    schedule.begin(14.0)
    for now_s in (14.5, 16.0, 17.5, 19.0):
        schedule.wake(now_s)
    assert schedule.due_s() == 14.5 + MAX_WAIT_S


def test_asking_changes_nothing() -> None:
    """The due time can be asked for any number of times."""
    schedule = schedule_after(10.0)
    assert [schedule.due_s(), schedule.due_s()] == [12.0, 12.0]


def test_no_quiet_time_means_at_once() -> None:
    """Without a quiet time a pass is due with the first wake."""
    schedule = schedule_after(10.0, 11.0, intervals=INTERVALS._replace(quiet_s=0.0, max_wait_s=0.0))
    assert schedule.due_s() == 10.0


@given(st.lists(st.floats(0, 1e6), min_size=1).map(sorted))
def test_due_time_is_bounded(wakes_s: list[float]) -> None:
    """However many wakes come, the pass is never due before the quiet time is over nor after the longest wait."""
    due_s = schedule_after(*wakes_s).due_s()
    assert due_s <= wakes_s[0] + MAX_WAIT_S
    assert due_s >= min(wakes_s[-1] + QUIET_S, wakes_s[0] + MAX_WAIT_S)


def test_first_pass_asks_serf_at_once() -> None:
    """A new schedule asks Serf, and makes a pass even if Serf is away."""
    schedule = Schedule(INTERVALS)
    assert schedule.is_resync_due(0.0, is_serf_up=False)
    assert schedule.is_pass_due(0.0)


def test_wake_asks_serf_only_while_it_is_up() -> None:
    """A wake that is due asks Serf too, unless Serf is known to be away."""
    schedule = schedule_after(10.0)
    assert not schedule.is_resync_due(11.0, is_serf_up=True)
    assert schedule.is_resync_due(12.0, is_serf_up=True)
    assert not schedule.is_resync_due(12.0, is_serf_up=False)


def test_serf_is_asked_at_the_interval_and_again_after_a_correction() -> None:
    """A roster is asked for after the interval, and one second after it corrected a node file."""
    schedule = Schedule(INTERVALS._replace(resync_s=60.0))
    end(schedule, 100.0, UNCHANGED, has_roster=True)
    assert schedule.due_s() == 160.0
    schedule.end(100.0, Outcome(Verdict.APPLIED, "servers changed", "", corrected_count=1, has_roster=True))
    assert schedule.due_s() == 101.0


def test_one_pass_serves_the_interval_and_the_roster() -> None:
    """However long a pass takes, the next one asks Serf: there are not two passes, one of which asks nothing."""
    schedule = Schedule(INTERVALS._replace(resync_s=60.0))
    schedule.begin(100.0)
    schedule.end(103.0, Outcome(Verdict.UNCHANGED, "", "", has_roster=True))
    assert schedule.due_s() == 163.0
    assert not schedule.is_pass_due(162.9)
    assert schedule.is_resync_due(163.0, is_serf_up=True)


def test_hint_asks_serf_at_once() -> None:
    """A hint makes a resync due now."""
    schedule = schedule_after()
    schedule.ask_at(0.0)
    assert schedule.is_resync_due(1.0, is_serf_up=True)


def test_what_an_outcome_waits_for_is_looked_at_again() -> None:
    """An outcome that wants another look gets it at that time, and the next pass forgets it."""
    schedule = schedule_after()
    end(schedule, 10.0, Outcome(Verdict.APPLIED, "servers changed", "", again_s=0.25))
    assert schedule.due_s() == 10.25
    end(schedule, 10.25, UNCHANGED)
    assert not schedule.is_pass_due(1000.0)


def test_failures_without_harm_are_retried_with_growing_pauses() -> None:
    """A rejected template is tried again after one, two, four seconds, at most every ten; success starts anew."""
    schedule, now_s, pauses_s = schedule_after(), 0.0, []
    for _ in range(6):
        end(schedule, now_s, REJECTED)
        pauses_s.append(schedule.due_s() - now_s)
        now_s = schedule.due_s()
    assert pauses_s == [1.0, 2.0, 4.0, 8.0, RETRY_CHEAP_MAX_S, RETRY_CHEAP_MAX_S]
    end(schedule, now_s, UNCHANGED)
    schedule.fail(now_s)
    assert schedule.due_s() == now_s + 1.0


def test_failed_reloads_pause_up_to_the_setting_and_pause_the_same_configuration_alone() -> None:
    """A reload that fails is tried again with pauses that grow to the setting; what was corrected does not wait."""
    schedule, now_s, pauses_s = schedule_after(), math.ceil(time.monotonic()) + 1.0, []
    for _ in range(12):
        end(schedule, now_s, FAILED)
        pauses_s.append(schedule.due_s() - now_s)
        pause = schedule.begin(now_s + 0.5)
        assert pause.until_s == now_s + pauses_s[-1]
        assert pause.concerns("0123")
        assert not pause.concerns("another")
        now_s += pauses_s[-1]
    assert pauses_s == sorted(pauses_s)
    assert (pauses_s[0], pauses_s[-1]) == (1.0, RETRY_MAX_S)


def test_a_pass_that_ends_with_an_error_pauses_everything() -> None:
    """After an error neither a pass nor Serf is due at once, even if Serf was due before; the pauses grow."""
    schedule, now_s, pauses_s = Schedule(INTERVALS), 0.0, []
    for _ in range(6):
        assert schedule.is_resync_due(now_s, is_serf_up=True)
        schedule.begin(now_s)
        schedule.fail(now_s)
        assert not schedule.is_resync_due(schedule.due_s() - 0.001, is_serf_up=True)
        pauses_s.append(schedule.due_s() - now_s)
        now_s = schedule.due_s()
    assert pauses_s == [1.0, 2.0, 4.0, 8.0, RETRY_CHEAP_MAX_S, RETRY_CHEAP_MAX_S]


def test_good_reloads_are_kept_apart() -> None:
    """After a good reload every configuration waits for the reload interval."""
    schedule, now_s = schedule_after(), math.ceil(time.monotonic()) + 1.0
    assert not schedule.begin(now_s).concerns("anything")
    end(schedule, now_s, RELOADED)
    pause = schedule.begin(now_s + RELOAD_S - 1.0)
    assert pause.until_s == now_s + RELOAD_S
    assert pause.concerns("anything")
    assert not schedule.begin(now_s + RELOAD_S).concerns("anything")


def test_a_pause_may_end_while_a_pass_runs() -> None:
    """A pass that comes to its reload after the pause has ended does not wait for it once more."""
    pause = Pause(time.monotonic() + 0.05)
    assert pause.concerns("anything")
    assert 0 < pause.left_s <= 0.05
    time.sleep(0.06)
    assert not pause.concerns("anything")
    assert pause.left_s == 0


@given(st.lists(st.sampled_from([UNCHANGED, REJECTED, RELOADED, FAILED]), max_size=20), st.floats(0, 1e6))
def test_something_is_always_due(outcomes: list[Outcome], now_s: float) -> None:
    """Whatever the outcomes, a next pass is due, and not in the past."""
    schedule = schedule_after()
    for outcome in outcomes:
        end(schedule, now_s, outcome, has_roster=True)
        assert now_s < schedule.due_s() < math.inf
