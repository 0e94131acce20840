"""Spans and widths."""

import pytest

from serf_haproxy.show.table import explain_member
from serf_haproxy.show.words import format_part, format_span, shorten, shorten_names


@pytest.mark.parametrize(("span_s", "said"), [(-5, "0s"), (0.9, "0s"), (119, "119s"), (120, "2m"), (7200, "2h")])
def test_spans_have_one_unit(span_s: float, said: str) -> None:
    """A span is shown as a whole number of the largest unit of which there are two."""
    assert format_span(span_s) == said


@pytest.mark.parametrize(("width", "said"), [(9, "abcdefghi"), (8, "abcde..."), (2, "...")])
def test_a_text_that_is_too_long_ends_in_dots(width: int, said: str) -> None:
    """Dots stand for what is left out."""
    assert shorten("abcdefghi", width) == said


def test_names_that_differ_in_the_middle_are_told_apart() -> None:
    """Dots stand for what names have in common; a name that is like no other keeps its beginning and its end."""
    names = [f"node-in-a-rack-{number:03}.eu-central-1.example.internal" for number in range(200)]
    shown = shorten_names([*names, "web1", "another-name-which-is-long.example"], 24)
    assert len(set(shown.values())) == 202
    assert max(map(len, shown.values())) == 24
    assert shown[names[7]] == "...ack-007.eu-central..."
    assert (shown["web1"], shown["another-name-which-is-long.example"]) == ("web1", "another-nam...ng.example")


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (None, ""),
        ({"factor": 0.034}, "3%"),
        ({"factor": 1.0}, "100%"),
        ({"factor": None}, ""),
        ({"factor": "1"}, ""),
        ({"factor": 10**400}, ""),
        ({"factor": float("nan")}, ""),
    ],
)
def test_the_measured_part_of_a_weight_is_a_percentage(measured: dict[str, object] | None, said: str) -> None:
    """What another program has written into the file of shares shows nothing, and breaks nothing."""
    assert format_part(measured) == said


@pytest.mark.parametrize(
    ("factor", "weight", "said"),
    [(0.03, 3, "gets 3% of its weight: it is slow"), (1.0, 100, ""), (None, 3, ""), (0.93, 100, ""), (0.03, 0, "")],
    ids=str,
)
def test_the_table_says_why_a_server_gets_less(factor: float | None, weight: int, said: str) -> None:
    """A server that serves and gets less than its weight has a reason; one that gets all of it, or none, has none."""
    measured = {"factor": factor, "limit": 100, "reason": "it is slow"}
    member = {"state": "serving", "left_s": None, "trouble": "", "weight": weight, "measured": measured}
    assert explain_member(member) == said
