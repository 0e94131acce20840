"""Peaks: times of the week at which a service has more servers."""

import calendar

import pytest

from serf_haproxy.services.peaks import DAY_MIN, WEEK_MIN, Peak, find_week_min, read_peaks


@pytest.mark.parametrize(
    ("line", "peaks"),
    [
        ("Mon 08:00-12:30 min 6", [(480, 750)]),
        ("Tue,Thu 00:00-24:00 min 6", [(DAY_MIN, 2 * DAY_MIN), (3 * DAY_MIN, 4 * DAY_MIN)]),
        (
            "Sat-Mon 10:00-11:00 min 6",
            [(600, 660), (5 * DAY_MIN + 600, 5 * DAY_MIN + 660), (WEEK_MIN - 840, WEEK_MIN - 780)],
        ),
        ("Sun 22:00-02:00 min 6", [(WEEK_MIN - 120, 120)]),
        ("Wed 09:00-09:00 min 6", [(2 * DAY_MIN + 540, 3 * DAY_MIN + 540)]),
        ("Sun 00:00-24:00 min 6", [(WEEK_MIN - DAY_MIN, 0)]),
    ],
)
def test_a_line_is_a_peak_on_each_of_its_days(line: str, peaks: list[tuple[int, int]]) -> None:
    """Days go on over the end of the week; a time that is not after the beginning is one of the next day."""
    assert read_peaks([line]) == tuple(Peak(begin, end, 6) for begin, end in peaks)


def test_daily_is_each_day() -> None:
    """Seven days have the same hours."""
    assert read_peaks(["daily 12:00-13:00 min 2"]) == read_peaks(["Mon-Sun 12:00-13:00 min 2"])
    assert len(read_peaks(["daily 12:00-13:00 min 2", "Mon 01:00-02:00 min 3"])) == 8


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Mon 8:00-9:00 min 2",
        "Mon 08:00-24:01 min 2",
        "Mon 24:00-09:00 min 2",
        "Mon 08:00-09:00 min 0",
        "mon 08:00-09:00 min 2",
        "Mon 08:00-09:00",
        "Mon, Tue 08:00-09:00 min 2",
        "Mon 08:00-09:00 min 1001",
        "Mon 08:00-09:00 min 2\n",
        "daily,Mon 08:00-09:00 min 2",
    ],
)
def test_no_other_line_is_a_peak(line: str) -> None:
    """A line that is nearly right is refused."""
    with pytest.raises(ValueError, match="^"):
        read_peaks([line])


@pytest.mark.parametrize(
    ("zone", "at", "week_min"),
    [
        ("UTC", (2026, 11, 23, 0, 0, 59), 0),
        ("UTC", (2026, 11, 22, 23, 59, 59), WEEK_MIN - 1),
        ("Europe/Berlin", (2026, 11, 22, 23, 30, 0), 30),
        ("Europe/Berlin", (2026, 7, 1, 6, 0, 0), 2 * DAY_MIN + 480),
        ("Europe/Berlin", (2026, 12, 2, 7, 0, 0), 2 * DAY_MIN + 480),
        ("America/New_York", (2026, 11, 23, 3, 0, 0), WEEK_MIN - 120),
    ],
)
def test_the_time_zone_says_which_minute_of_the_week_it_is(zone: str, at: tuple[int, ...], week_min: int) -> None:
    """Eight in the morning is eight in the morning, in summer and in winter."""
    assert find_week_min(zone, calendar.timegm(at)) == week_min


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "America/Indiana", "../etc/passwd", "/etc/passwd"])
def test_an_unknown_time_zone_is_told(zone: str) -> None:
    """It is a fault, not a time."""
    with pytest.raises(ValueError, match="zone"):
        find_week_min(zone, 0.0)
