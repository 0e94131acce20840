"""What the daemon tells the web process of each pass: one line of JSON on its standard input."""

import json
import math
from typing import NamedTuple

LINE_BYTES = 4096  # a pipe takes this much as a whole, or nothing (PIPE_BUF)
ERROR = "ERROR"  # the verdict on a pass that ended with an error of its own


class News(NamedTuple):
    """What the daemon tells of one pass.

    Attributes:
        began_s: When it began, seconds since the epoch.
        ended_s: When it ended.
        verdict: One of `control.outcome.Verdict`, or ERROR.
        is_in_force: Whether HAProxy runs what it should.
        has_reloaded: Whether the master was told to reload, with or without success.
        command_count: Commands given to HAProxy's runtime socket.
        corrected_count: Node files that the roster corrected.
        drift_count: Servers that were changed by hand at HAProxy's socket, and put right.
        is_serf_up: Whether the daemon is connected to the Serf agent.
        are_settings_good: Whether the settings could be read when they were last asked for.
        is_repeated: Whether an earlier web process was told of the same pass, so that it does not count again.
        lost_count: News before this one that the web process was too slow to take.
    """

    began_s: float
    ended_s: float
    verdict: str
    is_in_force: bool = False
    has_reloaded: bool = False
    command_count: int = 0
    corrected_count: int = 0
    drift_count: int = 0
    is_serf_up: bool = False
    are_settings_good: bool = True
    is_repeated: bool = False
    lost_count: int = 0


def format_news(news: News) -> bytes:
    """Return news as a line."""
    return json.dumps(news).encode() + b"\n"


def parse_news(line: bytes) -> News | None:
    """Return the news in a line; None for a damaged one."""
    try:
        fields = json.loads(line)
        news = News(*fields)
    except (ValueError, TypeError):
        return None
    examples = News(0.0, 0.0, "")
    kinds = [(int, float) if isinstance(one, float) else type(one) for one in examples]
    are_right = all(isinstance(one, kind) for one, kind in zip(news, kinds, strict=True))
    return news if are_right and math.isfinite(news.began_s) and math.isfinite(news.ended_s) else None
