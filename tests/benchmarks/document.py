"""Write the results in JSON into the tables of docs/benchmarks.md, and draw the plots.

Usage: .venv/bin/python tests/benchmarks/document.py [--tables] [--results DIR] [--docs PATH...]

A table says which commit it is of, and whether `make bench` makes it with another command by now.

The text between `<!-- NAME.TABLE -->` and `<!-- end -->` is replaced by that table in NAME.json, the text after
`<!-- NAME -->` by the command, the machine and the goals: in docs/benchmarks.md and in the page about two balancers.
The plots are NAME.svg, in the directory of the JSON files.
The same results make the same bytes.
"""

import argparse
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import REPO, RESULTS_DIR

BLOCK = re.compile(r"<!-- ([a-z-]+)(?:\.([a-z-]+))? -->\n.*?<!-- end -->", re.DOTALL)
COLOURS = ("#1b6ca8", "#8ab6d6", "#c8553d")


def main(options: argparse.Namespace) -> None:
    """Rewrite the tables of the document, and draw the plots that have results."""
    results_dir = Path(options.results)
    known = read_commands()
    results = {path.stem: json.loads(path.read_text()) for path in sorted(results_dir.glob("*.json"))}
    for result in results.values():
        result["is_current"] = result["command"] in known
    for document in map(Path, options.docs):
        document.write_text(BLOCK.sub(lambda found: fill(found, results), document.read_text()))
    if not options.tables:
        draw_all(results, results_dir)


def draw_all(results: dict[str, Any], results_dir: Path) -> None:
    """Draw the plots that have results."""
    import matplotlib as mpl  # only the whole `make bench` needs it
    from matplotlib import pyplot

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "serf-haproxy", "svg.fonttype": "none", "font.size": 9, "axes.grid": True}
    mpl.rcParams |= {"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}
    for name, draw in PLOTS.items():
        if name in results:
            figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
            draw(axes, results[name]["data"])
            axes.legend()
            figure.savefig(results_dir / f"{name}.svg", metadata={"Date": None, "Creator": None})
            pyplot.close(figure)


def read_commands() -> set[str]:
    """Return the commands of `make bench`."""
    recipe = subprocess.run(
        ["make", "-n", "bench", "QUICK="], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    return {f"python tests/benchmarks/{words.strip()}" for words in re.findall(r"\brun ([\w/]+\.py[^;\n\\]*)", recipe)}


def fill(found: "re.Match[str]", results: dict[str, Any]) -> str:
    """Return a block with its results; a block without results stays as it is."""
    name, table = found[1], found[2]
    if name not in results or (table and table not in results[name]["tables"]):
        return found[0]
    text = results[name]["tables"][table] if table else describe(results[name])
    return f"<!-- {'.'.join(filter(None, (name, table)))} -->\n{text}\n<!-- end -->"


def describe(result: dict[str, Any]) -> str:
    """Return command, commit, machine and goals as a list."""
    command = f"`{result['command']}`" + ("" if result["is_current"] else ", another command than `make bench` has now")
    commit = f"; commit {result['commit']}" if "commit" in result else "; of an earlier state of the code"
    lines = [f"- {command}{commit}", f"- {result['machine']}; load {result['load_before']} before it"]
    lines += [
        f"- {'Met' if goal['is_met'] else '**Not met**'}: {goal['goal']}. Found: {goal['found']}."
        for goal in result["goals"]
    ]
    return "\n".join(lines)


def draw_routes(axes: Any, data: dict[str, Any]) -> None:
    """Draw the cumulative distribution of the times from join to first request, by balancer."""
    doors = data["joins_s"]
    if "ours" in doors:  # of a time when all joins named every balancer
        doors = {"the balancers": doors}
    for (door, joins_s), style in zip(doors.items(), ("-", "--")[: len(doors)], strict=True):
        for (name, values_s), colour in zip(joins_s.items(), COLOURS, strict=True):
            ordered = sorted(values_s)
            shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
            label = f"{name}, through {door}"
            axes.step([1000 * value_s for value_s in ordered], shares, style, where="post", label=label, color=colour)
    axes.set(
        xscale="log", xlabel="from the start of a node's Serf agent to its first request, ms", ylabel="share of joins"
    )


def draw_latency(axes: Any, data: dict[str, Any]) -> None:
    """Draw the latency at each percentile, in quiet phases and with changes."""
    for (name, points), colour in zip(data["latency_s"].items(), (COLOURS[1], COLOURS[2]), strict=True):
        kept = [(100 - percent, 1000 * value_s) for percent, value_s in points if percent < 100]
        axes.plot(*zip(*kept, strict=True), marker=".", label=name, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="slowest requests, % of all", ylabel="latency, ms")
    axes.invert_xaxis()


def draw_growth(axes: Any, data: dict[str, Any]) -> None:
    """Draw the time of one change by the number of nodes: that of serf-haproxy and that of HAProxy."""
    for (path, key, name), colour in zip(
        (
            ("event", "ours_s", "ours, by event"),
            ("hint", "ours_s", "ours, by hint"),
            ("event", "check_s", "haproxy -c"),
        ),
        COLOURS,
        strict=True,
    ):
        points = [(int(count), 1000 * shares[key]) for count, shares in data["shares"][path].items()]
        axes.plot(*zip(*points, strict=True), marker="o", label=name, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="one change, ms")


def draw_gossip(axes: Any, data: dict[str, Any]) -> None:
    """Draw the cumulative distribution of the times from the start of a Serf agent to its use in HAProxy."""
    ordered = sorted(data["took_s"])
    shares = [(number + 1) / len(ordered) for number in range(len(ordered))]
    axes.step(ordered, shares, where="post", label=f"{len(ordered)} Serf agents", color=COLOURS[0])
    axes.set(xlabel="from the start of a Serf agent to its use in HAProxy, s", ylabel="share of Serf agents")


PLOTS: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "time-to-route": draw_routes,
    "time-to-route-local": draw_routes,
    "lost": draw_latency,
    "lost-by-reload": draw_latency,
    "growth": draw_growth,
    "gossip": draw_gossip,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="write the tables only")
    parser.add_argument("--results", default=str(RESULTS_DIR), metavar="DIR")
    pages = [str(REPO / "docs" / name) for name in ("benchmarks.md", "how-to/run-two-balancers.md")]
    parser.add_argument("--docs", nargs="+", default=pages, metavar="PATH")
    main(parser.parse_args())
