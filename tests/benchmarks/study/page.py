"""Fill docs/study.md, and draw its plots, from the results.

The text between `<!-- NAME -->` and `<!-- end -->` is replaced: NAME is a case, `runs`, `choice`, `orders` or
`constant`. The same results make the same bytes.
"""

import collections
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from study import constant, orders, results
from study.algorithms import list_algorithms
from study.cases import Case, list_cases
from study.tables import Group, count_void, group_results, median_ms, show_ms, tabulate

_BLOCK = re.compile(r"(<!-- ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


Draw = Callable[[Group, Path], str]


def write_page(results_dir: Path, path: Path, draw: Draw | None = None) -> None:
    """Write the page from the results in a directory; `draw` draws the plots of a group and returns the file's name."""
    found = results.read_results(results_dir)
    cases = list_cases()
    groups = group_results(cases.values(), found, list(list_algorithms(is_whole=True)))

    def fill(block: "re.Match[str]") -> str:
        name = block[2]
        if name in cases:
            text = _show_case(cases[name], groups, _link_plots(draw, results_dir, path))
        else:
            makers = {
                "runs": lambda: _show_runs(found),
                "choice": lambda: _show_choice(groups),
                "orders": lambda: _show_orders(groups),
                "constant": lambda: constant.show(results_dir),
            }
            text = makers[name]()
        return f"{block[1]}{text.strip()}\n{block[3]}"

    path.write_text(_BLOCK.sub(fill, path.read_text()))


def _show_runs(found: Mapping[str, Mapping[str, Any]]) -> str:
    cells = [cell for case in found.values() for cell in case.values()]
    if not cells:
        return "Nothing has been measured yet."
    commits = collections.Counter(cell["commit"] for cell in cells)
    seeds = {cell["seed"] for cell in cells}
    counted = sorted(cell["requests"] for cell in cells)
    total = sum(cell["requests_in_all"] for cell in cells)
    machines = "; ".join(sorted({cell["machine"] for cell in cells}))
    void_count = count_void(cells)
    lags_ms = sorted(cell["lag_p99_ms"] for cell in cells)
    lines = [
        f"- {len(cells)} cells, each one algorithm, case, load and seed, with {total:,} requests; seeds {min(seeds)} to"
        f" {max(seeds)}. Not every cell has all of them: the tables say how many.",
        f"- In a cell {counted[0]:,} to {counted[-1]:,} requests count, {counted[len(counted) // 2]:,} in the median."
        " A cell of the whole study has 20,000.",
        f"- {machines}. The generator's lag at p99 was {lags_ms[len(lags_ms) // 2]:.1f} ms in the median cell and"
        f" at most {lags_ms[-1]:.1f} ms.",
    ]
    if void_count:
        lines.append(
            f"- **{void_count} of the {len(cells)} cells are void by the rule below** (more than 5 ms): the machine was"
            " busy with other work. They are shown as an indication: their latencies are too high by about the lag, all"
            " algorithms' alike. Repeat them on a calm machine."
        )
    lines += [f"- {count} cells measured at commit {commit}." for commit, count in sorted(commits.items())]
    return "\n".join(lines)


def _show_case(case: Case, groups: Sequence[Group], link: Callable[[Group], str]) -> str:
    mine = [group for group in groups if group.case.name == case.name]
    there = [(group.load, group.count) for group in mine]
    missing = [f"{count} servers at {load} %" for load, count in case.loads if (load, count) not in there]
    parts = [f"### {case.title}", case.remark]
    for group in mine:
        parts += [f"{group.count} servers at {group.load} %:", tabulate(group), link(group)]
    parts += [f"Not run yet: {', '.join(missing)}."] if missing else []
    return "\n\n".join(filter(None, parts))


def _link_plots(draw: Draw | None, results_dir: Path, path: Path) -> Callable[[Group], str]:
    """Return a function that draws the plots of a group and returns a link to them."""

    def link(group: Group) -> str:
        if draw is None:
            return ""
        picture = results_dir / draw(group, results_dir)
        return f"![{group.case.title}]({os.path.relpath(picture, path.parent)})"

    return link


def _show_choice(groups: Sequence[Group]) -> str:
    lines = []
    for group in groups:
        if group.case.name in ("slow", "equal", "broken"):
            p99 = {name: median_ms(found, "p99_ms") for name, found in group.results.items()}
            said = ", ".join(f"{name} {show_ms(p99[name])}" for name in sorted(p99, key=lambda name: p99[name]))
            lines.append(f"- {group.case.title}, {group.count} servers at {group.load} %: {said}.")
    return "\n".join(lines) or "There are no results yet."


def _show_orders(groups: Sequence[Group]) -> str:
    verdicts = orders.check_orders(groups)
    lines = [orders.describe(verdict) for verdict in verdicts]
    checked = [verdict.order for verdict in verdicts]
    lines += [
        f"- Not checked yet: {order.case}, {order.load} %: {order.lesser} and {order.greater}."
        for order in orders.ORDERS
        if order not in checked
    ]
    return "\n".join(lines)
