"""The cases of the study: a load before a service, and what is asked of the laws there."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from scaling import loads
from scaling.service import Array, Shape

_SHAPE = Shape()
_MEAN_RATE = 500.0  # 100 requests in flight
_SOURCES = {
    "nasa-requests-per-minute": "the web servers of NASA's Kennedy Space Center, July and August 1995",
    "twitter-requests-per-minute": "posts of a sample of Twitter, August 2021",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One load.

    Attributes:
        name: Of its results and plot.
        title: A line for the page.
        shape: The service.
        make: Makes its rates, a step each.
        in_windows_s: Windows with which our law runs: the default one, which Knative has too; twice as much; and HPA's.
        change_s: When a sudden load begins, whose queue is timed; None without one.
        shown_s: What is drawn, from and to.
        is_recorded: Whether the rates are recorded ones.
    """

    name: str
    title: str
    make: Callable[[], Array]
    shape: Shape = _SHAPE
    in_windows_s: tuple[float, ...] = (60.0, 120.0, 300.0)
    change_s: int | None = None
    shown_s: tuple[int, int] | None = None
    is_recorded: bool = False


def list_cases(traces: list[Path], scale: float = 1.0) -> Iterator[Case]:
    """Yield all cases.

    Args:
        traces: Files of requests a minute.
        scale: The part of the recorded and of the long loads that is run, 0 to 1.
    """
    rate = _MEAN_RATE
    for path in traces:
        days = max(1, round(scale * len(path.read_text().split()) / 1440))
        source = _SOURCES.get(path.stem, path.stem)
        yield Case(
            path.stem.partition("-")[0],
            f"Recorded: {source}, {days} days",
            lambda path=path, days=days: loads.read_minutes(path, rate, days),  # type: ignore[misc]
            in_windows_s=(60.0, 300.0),
            shown_s=(0, 86_400),
            is_recorded=True,
        )
    constant = "A constant rate, for an hour"
    yield Case("constant", constant, lambda: np.full(3600, rate), shown_s=(0, 1800))
    yield Case("crowd", "A crowd: five times the load for a quarter of an hour", _make_crowd, change_s=900)
    slow = _SHAPE._replace(start_s=30.0)
    yield Case("crowd-slow", "The same crowd, and servers that need 30 s to start", _make_crowd, slow, change_s=900)
    yield Case("step", "A step to twice the load", lambda: loads.make_step(rate / 2), change_s=1800)
    yield Case("ramp", "A ramp to six times the load in 40 minutes, and back", lambda: loads.make_ramp(rate / 3))
    title = "On for two minutes, off for four"
    yield Case("bursts", title, lambda: loads.make_bursts(rate))
    days = max(1, round(30 * scale))
    large = _SHAPE._replace(most=10_000)
    title = f"The curve of the day, up to {'10,000' if scale == 1 else 'many'} servers, {days} days"
    yield Case(
        "day",
        title,
        lambda: loads.make_day(days, 205_000.0 * min(1.0, 10 * scale)),
        large,
        in_windows_s=(60.0, 300.0),
        shown_s=(0, 2 * loads.DAY_S),
    )


def _make_crowd() -> Array:
    return loads.make_crowd(_MEAN_RATE / 2)
