"""The demand of the last minutes: its maximum over any window, and its mean, from a few numbers. Pure.

Only a demand that no later one has reached can ever be the maximum of a window that ends now. So a course keeps a
staircase that falls, at most one step for each second: about six steps while the demand is steady.
"""

import math
from typing import NamedTuple

MEAN_S = 60.0  # what is so old counts a third in the mean
_GAP_S = 5.0  # a gap in what is known that is not longer hides no load that lasts


class Course(NamedTuple):
    """What is known of the demand.

    Attributes:
        peaks: Seconds, by the clock of the readings, and the greatest demand in each; later ones are smaller.
        mean: The demand of the last minute on average, what is older counts less; None before any is known.
        seen_s: When it was known last.
        whole_since_s: Since when the demand is known whole, without a gap; None while it is not.
        whole_s: When it was known whole last.
    """

    peaks: tuple[tuple[int, int], ...] = ()
    mean: float | None = None
    seen_s: float = -math.inf
    whole_since_s: float | None = None
    whole_s: float = -math.inf

    def find_peak(self, now_s: float, window_s: float) -> int:
        """Return the greatest demand of the last seconds; 0 if there was none."""
        edge_s = now_s - window_s - 1  # the whole of the second in which the window begins
        return next((demand for second, demand in self.peaks if second > edge_s), 0)

    def covers(self, now_s: float, window_s: float) -> bool:
        """Return whether the demand of all the last seconds is known."""
        return self.whole_since_s is not None and now_s - self.whole_since_s >= window_s


class Look(NamedTuple):
    """One look at the demand.

    Attributes:
        demand: Requests in flight or queued; None if nothing is known of it.
        is_whole: Whether that is all of it; else it is the least that it can be.
        level: What counts in the mean: less than the demand where a queue does not need a server for each request.
    """

    demand: int | None
    is_whole: bool
    level: float


def add(course: Course, now_s: float, look: Look, keep_s: float) -> Course:
    """Return a course with one more look at the demand.

    Args:
        course: What was known.
        now_s: Not before the look before.
        look: What is seen.
        keep_s: The longest window that will be asked for.
    """
    since_s, whole_s = course.whole_since_s, course.whole_s
    if now_s - whole_s > _GAP_S:
        since_s = now_s if look.is_whole else None
    whole_s = now_s if look.is_whole else whole_s
    if look.demand is None:
        return course._replace(whole_since_s=since_s, whole_s=whole_s)
    part = -math.expm1(-(now_s - course.seen_s) / MEAN_S)
    mean = look.level if course.mean is None else course.mean + (look.level - course.mean) * part
    return Course(_extend(course.peaks, now_s, look.demand, keep_s), mean, now_s, since_s, whole_s)


def _extend(
    peaks: tuple[tuple[int, int], ...], now_s: float, demand: int, keep_s: float
) -> tuple[tuple[int, int], ...]:
    """Return a staircase with one more demand, without what is too old."""
    begin, end, second = 0, len(peaks), math.floor(now_s)
    while end and peaks[end - 1][1] <= demand:
        end -= 1
    while begin < end and peaks[begin][0] <= now_s - keep_s - 1:
        begin += 1
    kept = peaks[begin:end]
    return kept if kept and kept[-1][0] == second else (*kept, (second, demand))
