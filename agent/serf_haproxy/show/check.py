"""A line of the doctor."""

from typing import NamedTuple


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        is_good: Whether it is as it should be.
        what: What was found.
        remedy: What to do, "" where nothing is to do.
    """

    is_good: bool
    what: str
    remedy: str = ""


def judge(is_good: bool, what: str, remedy: str) -> Check:
    """Return a check whose remedy counts only where it is not good."""
    return Check(is_good, what, "" if is_good else remedy)
