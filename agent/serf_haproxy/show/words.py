"""Spans, widths and colours."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from serf_haproxy.show.levels import Level

Paint = Callable[[Level, str], str]

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
_COLOURS = {Level.WARNING: "\x1b[33m", Level.CRITICAL: "\x1b[1;31m"}
_PLAIN = "\x1b[0m"
_COMMON = 4  # characters before those in which names differ


def format_span(span_s: float) -> str:
    """Return a span in one unit: 12s, 5m, 3h, 2d; a negative one, from a clock that was set back, is 0s."""
    for size_s, unit in _UNITS:
        if span_s >= 2 * size_s:
            return f"{int(span_s // size_s)}{unit}"
    return f"{max(0, int(span_s))}s"


def format_part(measured: Mapping[str, Any] | None) -> str:
    """Return how much of its weight a server gets, such as `3%`; "" where that is not measured, or not known."""
    factor = (measured or {}).get("factor")
    return f"{100 * factor:.0f}%" if isinstance(factor, (int, float)) and 0 <= factor <= 1 else ""


def shorten(text: str, width: int) -> str:
    """Return a text that is no wider than a number of characters; "..." stands for what is left out."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def shorten_middle(text: str, width: int) -> str:
    """Return a text that is no wider than a number of characters; names often differ at their end, so it is kept."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{text[: width - 3 - end]}...{text[-end:]}"


def shorten_names(names: Iterable[str], width: int) -> dict[str, str]:
    """Return names that are no wider than a number of characters.

    Those that would look alike, since they differ in the middle, lose the beginning that they have in common instead.
    """
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        alike.setdefault(shorten_middle(name, width), []).append(name)
    shown: dict[str, str] = {}
    for said, group in alike.items():
        pairs = enumerate(zip(min(group), max(group), strict=False))  # of all of them these differ first
        begin = max(0, next((index for index, (one, other) in pairs if one != other), 0) - _COMMON)
        shown |= {name: said if len(group) == 1 else f"...{shorten(name[begin:], width - 3)}" for name in group}
    return shown


def keep_plain(_level: Level, text: str) -> str:
    """Return a text without colours."""
    return text


def paint(level: Level, text: str) -> str:
    """Return a text in the colour of its level."""
    return f"{_COLOURS[level]}{text}{_PLAIN}" if level in _COLOURS else text
