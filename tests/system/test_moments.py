"""Points in time as operators write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.system.moments import format_time, read_time

NOW_S = 1_795_662_000.0  # 2026-11-26T03:00:00Z


@pytest.mark.parametrize(
    ("text", "ahead_s", "back_s"),
    [
        ("90", 90, -90),
        ("90s", 90, -90),
        ("30m", 1800, -1800),
        ("2h", 7200, -7200),
        ("1d12h", 129_600, -129_600),
        ("1h30m5s", 5405, -5405),
        ("04:30Z", 5400, 5400 - 86400),
        ("02:00:30Z", 86400 - 3570, -3570),
        ("2026-11-26T03:00Z", 0, 0),
        ("2026-11-27 03:00:01Z", 86401, 86401),
    ],
)
def test_a_time_is_read(text: str, ahead_s: float, back_s: float) -> None:
    """A span goes ahead or back from now, a clock time is the next or the last one, and a date is what it is."""
    assert read_time(text, NOW_S) - NOW_S == ahead_s
    assert read_time(text, NOW_S, is_past=True) - NOW_S == back_s


@pytest.mark.parametrize(
    "text", ["", "x", "-5", "5x", "5m3h", "25:00Z", "2026-13-01T00:00Z", "18:30", "1.5h", "٣", " 5"]
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    """The error names what was said and what can be written."""
    with pytest.raises(ValueError, match="is no time: write a span such as 90s"):
        read_time(text, NOW_S)


@given(st.integers(0, 4_102_444_800))
def test_what_is_shown_can_be_read(at_s: int) -> None:
    """A time that is shown means itself."""
    assert read_time(format_time(at_s), NOW_S) == at_s
