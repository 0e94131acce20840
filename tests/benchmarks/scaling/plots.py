"""The plots of the study: what the load needs, the servers of each law, and how long requests wait."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from styling import STYLE

from scaling.cases import Case
from scaling.measure_case import Run
from scaling.service import Array

mpl.use("svg")
from matplotlib import pyplot

_COLOURS = {"serf-haproxy": "#c8553d", "Knative": "#1b6ca8", "HPA": "#588157"}
_LINES = {"120 s": "--", "300 s": "-."}
_POINTS = 400


def draw(case: Case, optimum: Array, runs: list[Run], directory: Path) -> str:
    """Draw a case; return the name of the file. The same results make the same bytes."""
    begin, end = case.shown_s or (0, len(optimum))
    shown = slice(begin, min(end, len(optimum)))
    unit_s, unit = (3600.0, "hours") if shown.stop - shown.start > 10_000 else (60.0, "minutes")
    with mpl.rc_context(STYLE):
        figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 4.6), layout="constrained", sharex=True)
        needed = runs[0].course.demand[shown] / case.shape.capacity
        times, least, most = _thin(needed)
        above.fill_between(times / unit_s, least, most, color="#cccccc", label="the demand needs", linewidth=0)
        above.plot(times / unit_s, _thin(optimum[shown])[2], color="black", linewidth=1, linestyle=":", label="optimum")
        for run in runs:
            plain, _, window = run.law.partition(", ")
            look = {"color": _COLOURS[plain], "linestyle": _LINES.get(window, "-"), "linewidth": 1, "label": run.law}
            above.plot(times / unit_s, _thin(run.course.existing[shown])[2], **look)
            below.plot(times / unit_s, _thin(run.course.find_waits()[shown])[2], **look)
        top = max(float(run.course.existing[shown].max()) for run in runs)
        above.set(ylabel="servers", ylim=(0, 1.05 * top))
        below.set(xlabel=unit, ylabel="longest wait, s")
        above.legend(fontsize=7, ncols=3)
        path = directory / f"{case.name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return path.name


def _thin(values: Array) -> tuple[Array, Array, Array]:
    """Return the middle, the least and the greatest value of a few hundred parts of the time."""
    size = max(1, -(-len(values) // _POINTS))
    whole = np.pad(values, (0, -len(values) % size), mode="edge").reshape(-1, size)
    return np.arange(len(whole)) * float(size), whole.min(axis=1), whole.max(axis=1)
