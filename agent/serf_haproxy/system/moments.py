"""Points in time as operators write and read them."""

import calendar
import re
import time

_SPAN = re.compile(r"(?=.)(?:(\d{1,5})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s?)?", re.ASCII)
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d)?Z", re.ASCII)
_CLOCK = re.compile(r"(\d\d:\d\d)(:\d\d)?Z", re.ASCII)
FORMS = "a span such as 90s, 30m, 2h or 1d12h, or a time in UTC such as 18:30Z or 2026-11-26T18:30Z"


def time_ms() -> int:
    """Return the time, milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def format_time(at_s: float) -> str:
    """Return a time in UTC to the second, given in seconds since the epoch; one beyond the calendar as a number."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
    except (OverflowError, ValueError, OSError):
        return f"{at_s:.0f} s"


def read_time(text: str, now_s: float, is_past: bool = False) -> float:
    """Return the time that a text means, seconds since the epoch.

    Args:
        text: One of `FORMS`. A time without a date is the next one, or the last one.
        now_s: The time.
        is_past: Whether a span goes back from now, and a time without a date is the last one.

    Raises:
        ValueError: It is none of these.
    """
    if span := _SPAN.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in span.groups())
        span_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        return now_s - span_s if is_past else now_s + span_s
    if date := _DATE.fullmatch(text):
        return _read(f"{date[1]} {date[2]}{date[3] or ':00'}", text)
    if clock := _CLOCK.fullmatch(text):
        today = time.strftime("%Y-%m-%d", time.gmtime(now_s))
        at_s = _read(f"{today} {clock[1]}{clock[2] or ':00'}", text)
        if is_past:
            return at_s - 86400 if at_s > now_s else at_s
        return at_s + 86400 if at_s < now_s else at_s
    raise ValueError(f"{text!a} is no time: write {FORMS}")


def _read(text: str, said: str) -> float:
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S")))
    except ValueError:
        raise ValueError(f"{said!a} is no time: write {FORMS}") from None
