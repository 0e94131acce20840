"""The handler's CPU time per event, as a ratio to a bare `python -I -c pass` of the same interpreter in the same run.

Usage: .venv/bin/python tests/benchmarks/handler.py [ROUNDS]

Both run in turn, so that a change of the machine's speed meets both. "changed" events rewrite every member's node
file, "repeated" ones say nothing new.
"""

import os
import sys
import tempfile
from pathlib import Path

from measure import child_cpu_s, median, print_table, spawn

REPO = Path(__file__).parents[2]
HANDLER = str(REPO / "handlers" / "member_event")
PYTHON = str(REPO / ".venv" / "bin" / "python")


def main(rounds: int) -> None:
    """Measure and print the table."""
    rows = []
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        environ = {"SERF_HAPROXY_NODES_DIR": directory, "SERF_HAPROXY_WAKE_FIFO": f"{directory}.none"}
        payload = f"{directory}.payload"
        for member_count in (1, 8, 64):
            for kind in ("changed", "repeated"):
                bare_s, ours_s = [], []
                for number in range(rounds):
                    Path(payload).write_text(members(member_count, number if kind == "changed" else 0))
                    event = environ | {"SERF_EVENT": "member-update"}
                    bare_s.append(child_cpu_s(lambda: spawn([PYTHON, "-I", "-c", "pass"], environ, os.devnull)))
                    ours_s.append(child_cpu_s(lambda: spawn([HANDLER], event, payload)))  # noqa: B023
                ratio = median([ours / bare for ours, bare in zip(ours_s, bare_s, strict=True)])
                bare, ours = (f"{1000 * median(values):.1f}" for values in (bare_s, ours_s))
                rows.append((member_count, kind, bare, ours, f"{ratio:.2f}"))
        os.unlink(payload)
    print_table(("members", "event", "bare python, ms", "handler, ms", "ratio"), rows)


def members(count: int, number: int) -> str:
    """Return an event's standard input whose tags differ from one number to the next."""
    return "".join(f"web{node}\t10.0.0.{node + 1}\tweb\tport=8080,role=web,v={number}\n" for node in range(count))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
