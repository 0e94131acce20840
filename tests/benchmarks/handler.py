"""The handler's CPU time per event, relative to `python -I -c pass` with the same interpreter in the same run.

Usage: .venv/bin/python tests/benchmarks/handler.py [--rounds 100] [--results DIR]

Both run in turn, so that a change of the machine's speed affects both. A "changed" event rewrites the node files of all
its members, a "repeated" event changes none.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import REPO, Report, child_cpu_s, make_parser, median, spawn
from membership import HANDLER

from serf_haproxy.serf import inbox

ORDER_HANDLER = str(REPO / "handlers" / "order_event")
ORDER = {"SERF_EVENT": "user", "SERF_USER_EVENT": "lb-order"}
QUERY = {"SERF_EVENT": "query", "SERF_QUERY_NAME": "lb-explain"}
PYTHON = str(REPO / ".venv" / "bin" / "python")


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("handler", options)
    rows: list[tuple[object, ...]] = []
    ratios: dict[tuple[int, str], float] = {}
    orders_ratio = 0.0
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        environ = {"SERF_HAPROXY_NODES_DIR": directory, "SERF_HAPROXY_WAKE_FIFO": f"{directory}.none"}
        payload = f"{directory}.payload"
        for member_count in (1, 8, 64):
            for kind in ("changed", "repeated"):
                bare_s, ours_s = [], []
                for number in range(options.rounds):
                    Path(payload).write_text(members(member_count, number if kind == "changed" else 0))
                    event = environ | {"SERF_EVENT": "member-update"}
                    bare_s.append(child_cpu_s(lambda: spawn([PYTHON, "-I", "-c", "pass"], environ, os.devnull)))
                    ours_s.append(child_cpu_s(lambda: spawn([HANDLER], event, payload)))  # noqa: B023
                ratio = median([ours / bare for ours, bare in zip(ours_s, bare_s, strict=True)])
                bare, ours = (f"{1000 * median(values):.1f}" for values in (bare_s, ours_s))
                ratios[member_count, kind] = ratio
                rows.append((member_count, kind, bare, ours, f"{ratio:.2f}"))
        os.unlink(payload)
        for name, event, text in (("an order", ORDER, "x" * 440), ("a query", QUERY, "web1")):
            rows.append(("-", name, *(measured := measure_order(options.rounds, event, text))))
            orders_ratio = max(orders_ratio, float(measured[-1]))
    report.add_table("cost", ("members", "event", "bare python, ms", "handler, ms", "ratio"), rows)
    found = f"{ratios[8, 'changed']:.2f}"
    report.add_goal("at most 1.5 times a bare Python with 8 members", found, ratios[8, "changed"] <= 1.5)
    report.add_goal(
        "at most 1.5 times a bare Python with an order or a query", f"{orders_ratio:.2f}", orders_ratio <= 1.5
    )
    report.write()


def measure_order(rounds: int, event: dict[str, str], text: str) -> tuple[str, str, str]:
    """Return the CPU time of a bare Python and of the handler of orders, milliseconds, and their ratio."""
    bare_s, ours_s = [], []
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        home = Path(directory)
        for name in ("inbox", "answers"):
            (home / name).mkdir()
        for name in ("status", "ready", "nodes"):
            (home / "answers" / name).write_text("".join(f"web{number}\tnodes serving\n" for number in range(1000)))
        environ = event | {"SERF_HAPROXY_WAKE_FIFO": f"{directory}/wake"}
        (home / "payload").write_text(text)
        for _ in range(rounds):
            bare_s.append(child_cpu_s(lambda: spawn([PYTHON, "-I", "-c", "pass"], environ, os.devnull)))
            ours_s.append(child_cpu_s(lambda: spawn([ORDER_HANDLER], environ, f"{directory}/payload")))
            inbox.take(f"{directory}/inbox")
    ratio = median([ours / bare for ours, bare in zip(ours_s, bare_s, strict=True)])
    return f"{1000 * median(bare_s):.1f}", f"{1000 * median(ours_s):.1f}", f"{ratio:.2f}"


def members(count: int, number: int) -> str:
    """Return the standard input of an event; the members' tags contain the number."""
    return "".join(f"web{node}\t10.0.0.{node + 1}\tweb\tport=8080,role=web,v={number}\n" for node in range(count))


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="events of each kind (default: 100)")
    main(parser.parse_args())
