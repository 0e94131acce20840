"""Twenty web applications on one machine."""

import os
from pathlib import Path

from containers.cluster import Cluster
from containers.engine import ROOT

COUNT = 20
HEADING = "## Containers"


def test_twenty_web_applications_are_served(cluster: Cluster) -> None:
    """Twenty web applications started at once are all served; the balancer's memory stays below 150 MB."""
    balancer = cluster.balancer()
    names = [f"web{number}" for number in range(1, COUNT + 1)]
    cluster.webapps(*names)
    balancer.wait_servers(*names, timeout_s=90)
    assert set(balancer.shares(2 * COUNT)) == set(names)
    script = (
        "cd /proc; for p in [0-9]*; do echo $(tr '\\0' ' ' <$p/cmdline | cut -c1-100)"
        "'\t'$(sed -n 's/^[PR]ss: *\\([0-9]*\\) kB/\\1/p' $p/smaps_rollup); done"
    )
    rows: dict[str, list[list[int]]] = {}
    for line in balancer.spy(script).splitlines():
        command, _, sizes = line.rpartition("\t")
        if (name := _name(command)) and sizes:
            rows.setdefault(name, []).append([int(size) for size in sizes.split()])
    everything = "all of the balancer's container"
    totals = {name: _total(found) for name, found in sorted(rows.items())}
    totals[everything] = _total([size for found in rows.values() for size in found])
    table = ["| process | count | resident | its share (PSS) |", "|---|---|---|---|"]
    table += [f"| {name} | {count} | {rss:.1f} MB | {pss:.1f} MB |" for name, (count, rss, pss) in totals.items()]
    print("\n".join(table))
    if os.environ.get("RENEW_BENCHMARKS"):
        _write(ROOT / "docs" / "benchmarks.md", "\n".join(table))
    assert {"haproxy", "serf-haproxy run", "serf agent"} <= set(rows)
    assert totals[everything][2] < 150


def _total(sizes: list[list[int]]) -> tuple[int, float, float]:
    """Return the count of processes, and their total RSS and PSS in MB."""
    return len(sizes), sum(size[0] for size in sizes) / 1024, sum(size[1] for size in sizes) / 1024


def _name(command: str) -> str | None:
    """Return the table's name for a command line; None for the measuring processes."""
    words = [os.path.basename(word) for word in command.split()]
    for name in ("serf-haproxy run", "serf agent"):
        if name in " ".join(words):
            return name
    if words and words[0] in ("haproxy", "s6-svscan", "s6-supervise", "s6-log"):
        return words[0]
    return "address/watch" if "watch" in words[:2] or "sleep" in words[:1] else None


def _write(path: Path, table: str) -> None:
    """Replace the table in the section of the benchmarks page."""
    text = path.read_text()
    before, _, after = text.partition(HEADING)
    section, separator, rest = after.partition("\n## ")
    words = section.split("\n| ")[0].rstrip()
    path.write_text(f"{before}{HEADING}{words}\n\n{table}\n{separator}{rest}")
