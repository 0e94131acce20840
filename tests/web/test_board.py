"""The pace at which the web process reads."""

import pytest

from serf_haproxy.web.board import choose_pause_s


@pytest.mark.parametrize(("used_s", "pause_s"), [(0.0, 2.0), (0.01, 2.0), (0.04, 4.0), (0.05, 5.0), (3.0, 5.0)])
def test_readings_for_a_page_take_a_hundredth_of_a_processor(used_s: float, pause_s: float) -> None:
    """Readings that cost more come less often, but at least every five seconds."""
    assert choose_pause_s(used_s) == pytest.approx(pause_s)
