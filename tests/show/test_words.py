"""Spans and widths."""

import pytest

from serf_haproxy.show.words import format_span, shorten


@pytest.mark.parametrize(("span_s", "said"), [(-5, "0s"), (0.9, "0s"), (119, "119s"), (120, "2m"), (7200, "2h")])
def test_spans_have_one_unit(span_s: float, said: str) -> None:
    """A span is shown as a whole number of the largest unit of which there are two."""
    assert format_span(span_s) == said


@pytest.mark.parametrize(("width", "said"), [(9, "abcdefghi"), (8, "abcde..."), (2, "...")])
def test_a_text_that_is_too_long_ends_in_dots(width: int, said: str) -> None:
    """Dots stand for what is left out."""
    assert shorten("abcdefghi", width) == said
