"""Rates of requests: shapes, and recorded ones from a file of requests a minute."""

import math
from pathlib import Path

import numpy as np

from scaling.service import Array

DAY_S = 86_400


def make_day(days: int, mean: float, swing: float = 0.6, seed: int = 7) -> Array:
    """Return a rate that rises and falls with the day, with slow random changes of a few percent."""
    times = np.arange(days * DAY_S)
    drift = np.repeat(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, days * 144)) % 1.0, 600)
    drift = 0.05 * np.sin(2 * math.pi * drift)
    return mean * (1 - swing * np.cos(2 * math.pi * times / DAY_S) + drift)


def make_crowd(mean: float, times: float = 5.0, span_s: int = 3600, begin_s: int = 900, length_s: int = 900) -> Array:
    """Return a rate that is several times as great for a while, from one second to the next."""
    rates = np.full(span_s, mean)
    rates[begin_s : begin_s + length_s] *= times
    return rates


def make_step(mean: float, times: float = 2.0, span_s: int = 3600) -> Array:
    """Return a rate that is greater from the middle on."""
    return np.where(np.arange(span_s) < span_s / 2, mean, times * mean)


def make_ramp(mean: float, times: float = 6.0, span_s: int = 7200) -> Array:
    """Return a rate that rises steadily for a third of the time, stays, and falls."""
    third = span_s // 3
    rise = np.linspace(mean, times * mean, third)
    return np.concatenate((rise, np.full(span_s - 2 * third, times * mean), rise[::-1]))


def make_bursts(mean: float, on_s: int = 120, off_s: int = 240, span_s: int = 7200) -> Array:
    """Return a rate that comes and goes: twice the mean while it is on, a tenth of that while it is off."""
    return np.where(np.arange(span_s) % (on_s + off_s) < on_s, 2 * mean, 0.2 * mean)


def read_minutes(path: Path, mean: float, days: int | None = None) -> Array:
    """Return recorded rates, scaled to a mean.

    Args:
        path: A file of whole numbers, one a line: requests in a minute, in order.
        mean: The mean rate, in requests a second.
        days: So many days from the beginning; None: all.
    """
    minutes = np.array([float(line) for line in path.read_text().split()][: None if days is None else days * 1440])
    seconds = np.interp(np.arange(len(minutes) * 60), np.arange(len(minutes)) * 60 + 29.5, minutes)
    scaled: Array = seconds * mean / seconds.mean()
    return scaled
