"""Fill docs/autoscale-study.md from the results. The same results make the same bytes."""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"(<!-- ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_OURS = "serf-haproxy"
_PEERS = {"Knative": (_OURS, 60), "HPA": (f"{_OURS}, 300 s", 300)}  # our law with the window of each, seconds
_COST, _P99 = (
    1.3,
    1.5,
)  # what is to be shown on recorded rates: at most so many optima, so many times the p99 of idle servers
_AXES: Mapping[str, str] = {
    "cost": "server-hours",
    "p99": "p99",
    "p999": "p99.9",
    "wait_mean_ms": "mean wait",
    "starts_per_hour": "starts",
}
_COLUMNS: Mapping[str, Callable[[Any], str]] = {
    "server-hours ÷ optimum": lambda one: f"{one['cost']:.2f}",
    "servers, mean and most": lambda one: f"{one['servers_mean']:,.0f}, {one['servers_most']:,}",
    "p99": lambda one: f"{one['p99']:.2f}",
    "p99.9": lambda one: f"{one['p999']:.2f}",
    "mean wait, ms": lambda one: f"{one['wait_mean_ms']:.2f}",
    "longest wait, s": lambda one: f"{one['wait_most_s']:.1f}",
    "seconds with a queue": lambda one: f"{one['queue_s']:,.0f}",
    "starts an hour": lambda one: f"{one['starts_per_hour']:.1f}",
}


def write_page(results_dir: Path, path: Path) -> None:
    """Write the page from the results in a directory."""
    found = {one.stem: json.loads(one.read_text()) for one in sorted(results_dir.glob("*.json"))}
    cases = dict(sorted(found.items(), key=lambda item: item[1]["place"]))

    def fill(block: "re.Match[str]") -> str:
        makers = {"cases": lambda: _show_cases(cases, results_dir, path), "goals": lambda: _show_goals(cases)}
        return f"{block[1]}{makers[block[2]]().strip()}\n{block[3]}"

    path.write_text(_BLOCK.sub(fill, path.read_text()))


def _show_cases(cases: Mapping[str, Any], results_dir: Path, path: Path) -> str:
    parts = []
    for name, case in cases.items():
        picture = os.path.relpath(results_dir / f"{name}.svg", path.parent)
        rows = ["| law | " + " | ".join(_COLUMNS) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
        for law, figures in case["laws"].items():
            rows.append(f"| {law} | " + " | ".join(show(figures) for show in _COLUMNS.values()) + " |")
        parts += [f"### {case['title']}", "\n".join(rows), f"![{case['title']}]({picture})"]
    return "\n\n".join(parts) or "Nothing has been simulated yet."


def _show_goals(cases: Mapping[str, Any]) -> str:
    lines = []
    for case in cases.values():
        ours = case["laws"][_OURS]
        if case["is_recorded"]:
            said = f"{ours['cost']:.2f} times the optimum's server-hours (at most {_COST}), p99"
            said += f" {ours['p99']:.2f} times that of idle servers (at most {_P99})"
            lines.append(f"- {_judge(ours['cost'] <= _COST and ours['p99'] <= _P99)} {case['title']}: {said}.")
        if "queue_empty_s" in ours:
            limit_s = case["start_s"] + 2
            said = f"the queue is gone {ours['queue_empty_s']:g} s after the load came (at most {limit_s:g} s)"
            lines.append(f"- {_judge(ours['queue_empty_s'] <= limit_s)} {case['title']}: {said}.")
    if "constant" in cases:
        turns = cases["constant"]["laws"][_OURS]["turns"]
        said = f"servers that were taken away came back {turns} times (never)"
        lines.append(f"- {_judge(turns == 0)} {cases['constant']['title']}, from minute ten on: {said}.")
    for peer, (law, window_s) in _PEERS.items():
        worse, better = _compare(cases, peer, law)
        with_what = f"with {window_s} s, as {peer} has"
        lines.append(f"- {_judge(bool(better))} Better than {peer}, {with_what}, by more than 5 %: {_list(better)}.")
        lines.append(f"- {_judge(not worse)} Worse than {peer}, {with_what}, by more than 5 %: {_list(worse)}.")
    return "\n".join(lines)


def _compare(cases: Mapping[str, Any], peer: str, law: str) -> tuple[list[str], list[str]]:
    """Return in which cases and axes our law, with some window, is worse than a peer, and in which better."""
    worse, better = [], []
    for name, case in cases.items():
        ours, theirs = case["laws"].get(law, case["laws"][_OURS]), case["laws"][peer]
        for key, word in _AXES.items():
            mine, other = ours[key], theirs[key]
            slack = 0.5 if key in ("wait_mean_ms", "starts_per_hour") else 0.0  # too little to matter
            said = f"{name}: {word} {mine:.4g} to {other:.4g}"
            if mine > 1.05 * other + slack:
                worse.append(said)
            elif other > 1.05 * mine + slack:
                better.append(said)
    return worse, better


def _judge(is_met: bool) -> str:
    return "met:" if is_met else "**not met:**"


def _list(items: list[str]) -> str:
    return "; ".join(items) or "nowhere"
