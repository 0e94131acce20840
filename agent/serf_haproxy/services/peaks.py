"""Times of the week for which a load is known to come, as the key `peaks` of a table `scale` says them.

Mon-Fri 08:00-18:00 min 6
Sat,Sun 20:00-02:00 min 4
daily 12:00-13:00 min 3
"""

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

DAY_MIN = 24 * 60
WEEK_MIN = 7 * DAY_MIN
UTC = "UTC"

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = f"(?:{'|'.join(_DAYS)})"
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_LEAST = "1000|[1-9][0-9]{0,2}"
PATTERN = rf"(daily|{_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*) ({_TIME})-({_TIME}|24:00) min ({_LEAST})"


class Peak(NamedTuple):
    """A time of the week for which a load is known to come.

    Attributes:
        begin_min: Its first minute, 0 for Monday 0:00 to WEEK_MIN - 1, in the operator's time zone.
        end_min: The minute at which it is over; one that is not after `begin_min` is in the week after.
        least: The fewest servers during that time.
    """

    begin_min: int
    end_min: int
    least: int


def read_peaks(lines: Iterable[str]) -> tuple[Peak, ...]:
    """Return the peaks of some lines, one for each day of a line. One that ends before it begins ends on the next day.

    Raises:
        ValueError: A line is wrong.
    """
    return tuple(peak for line in lines for peak in _read_line(line))


def _read_line(line: str) -> Iterator[Peak]:
    found = re.fullmatch(PATTERN, line, re.ASCII)
    if found is None:
        raise ValueError(line)
    begin_min, end_min = _read_time(found[2]), _read_time(found[3])
    span_min = (end_min - begin_min) % DAY_MIN or DAY_MIN
    for day in sorted(_list_days(found[1])):
        begin = day * DAY_MIN + begin_min
        yield Peak(begin, (begin + span_min) % WEEK_MIN, int(found[4]))


def _list_days(text: str) -> set[int]:
    if text == "daily":
        return set(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        days |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return days


def _read_time(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def find_zone(name: str) -> datetime.tzinfo:
    """Return a time zone.

    Raises:
        ValueError: This machine does not know it.
    """
    if name == UTC:
        return datetime.UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"this machine does not know the time zone {name}") from error


def find_week_min(zone: str, at_s: float) -> int:
    """Return the minute of the week of a moment in a time zone, 0 for Monday 0:00.

    Args:
        zone: The name of the time zone.
        at_s: Seconds since the epoch.

    Raises:
        ValueError: This machine does not know the time zone.
    """
    at = datetime.datetime.fromtimestamp(at_s, find_zone(zone))
    return at.weekday() * DAY_MIN + at.hour * 60 + at.minute
