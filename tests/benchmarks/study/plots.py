"""The plots of the study: how many requests take longer than a time, and where requests go while a server is sick."""

import collections
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from styling import STYLE

from study.sums import STEP
from study.tables import Group, Result

mpl.use("svg")
from matplotlib import pyplot

_COLOURS = {
    "roundrobin": "#1b6ca8",
    "static-rr": "#8ab6d6",
    "leastconn": "#c8553d",
    "random(1)": "#b8b08d",
    "random(2)": "#588157",
    "first": "#6d597a",
    "source": "#b56576",
    "uri": "#e0a458",
}


def draw(group: Group, results_dir: Path) -> str:
    """Draw the plots of a group; return the name of the file. The same results make the same bytes."""
    with mpl.rc_context(STYLE):
        panel_count = 2 if group.case.has_sick else 1
        figure, panels = pyplot.subplots(1, panel_count, figsize=(9, 3.6), layout="constrained", squeeze=False)
        for name, results in group.results.items():
            plain, _, is_measured = name.partition(" + ")
            look = {"color": _COLOURS[plain], "linestyle": "--" if is_measured else "-", "label": name}
            panels[0][0].step(*_make_tail(results), where="post", **look)
            if group.case.has_sick:
                panels[0][1].plot(*_make_shares(results), **look)
        panels[0][0].set(xscale="log", yscale="log", xlabel="latency, ms", ylabel="share of requests that take longer")
        if group.case.has_sick:
            panels[0][1].set(xlabel="seconds after the fault", ylabel="share of s1")
            _mark_end(panels[0][1], group)
        panels[0][0].legend(fontsize=7)
        path = results_dir / f"{group.name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return path.name


def draw_constant(result: Mapping[str, Any], path: Path) -> None:
    """Draw the weights of all servers over a run of constant load."""
    began_s, ended_s = result["marks_s"]
    with mpl.rc_context(STYLE):
        figure, panel = pyplot.subplots(figsize=(9, 3.2), layout="constrained")
        for name, colour in zip(result["weights"][-1][1], _COLOURS.values(), strict=False):
            times = [at_s for at_s, _ in result["weights"]]
            weights = [seen.get(name, 0.0) for _, seen in result["weights"]]
            panel.step(times, weights, where="post", label=name, color=colour, linewidth=1)
        panel.set(xlabel="seconds", ylabel="weight, of 100", ylim=(0, 105))
        for at_s in (began_s, ended_s):
            panel.axvline(at_s, color="#999999", linewidth=1, linestyle=":")
        panel.legend(fontsize=7, loc="center right")
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def _make_tail(results: Sequence[Result]) -> tuple[list[float], list[float]]:
    """Return latencies, and the share of the requests of all seeds that take longer; failures never end."""
    classes: collections.Counter[float] = collections.Counter()
    for result in results:
        for name, count in result["histogram"].items():
            classes[math.inf if name == "inf" else STEP ** int(name)] += count
    total, longer = classes.total(), classes.total()
    times, shares = [], []
    for value_ms, count in sorted(classes.items()):
        if math.isfinite(value_ms):
            times.append(value_ms)
            shares.append(longer / total)
        longer -= count
    return times, shares


def _make_shares(results: Sequence[Result]) -> tuple[list[int], list[float]]:
    """Return the seconds and the median over the seeds of the share of the sick server."""
    seconds: dict[int, list[float]] = collections.defaultdict(list)
    for result in results:
        for second, share in result["share_of_sick"]:
            if second >= -int(result["marks_s"][0]):  # the one before has begun too late to be a whole second
                seconds[second].append(share)
    return list(seconds), [statistics.median(shares) for shares in seconds.values()]


def _mark_end(panel: Any, group: Group) -> None:
    began_s, ended_s = next(iter(group.results.values()))[0]["marks_s"]
    for at_s in (0.0, ended_s - began_s):
        panel.axvline(at_s, color="#999999", linewidth=1, linestyle=":")
