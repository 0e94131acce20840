"""The time of one pass for 10 to 5,000 nodes, our share and that of `haproxy -c` apart, against a real HAProxy.

Usage: .venv/bin/python tests/benchmarks/pass.py [ROUNDS]

In each round one node changes its port, so that every pass is a whole one: read, render, apply, check, publish, record;
with another algorithm each time it takes a reload instead. "ours" is the pass without HAProxy's own work: the
check, the change at run time or the reload, and the time in which it answers what it runs.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import median, print_table

from integration.proxy import Proxy, running_proxy
from serf_haproxy import runtime, transport
from serf_haproxy.outcome import Verdict
from serf_haproxy.reconcile import reconcile

COUNTS = (10, 100, 1000, 5000)


def main(rounds: int) -> None:
    """Measure and print the table."""
    rows = []
    before_ms = 0.0
    for count in COUNTS:
        with (
            tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory,
            running_proxy(Path(directory)) as proxy,
        ):
            for number in range(count):
                proxy.record(f"web{number}", 1024)
            proxy.run_pass()
            live = [one_pass(proxy, 1025 + number, "roundrobin") for number in range(rounds)]
            reloads = [one_pass(proxy, 2025 + n, ("leastconn", "roundrobin")[n % 2]) for n in range(rounds)]
        ours, check, change, answers = (1000 * median([shares[index] for shares in live]) for index in range(4))
        reload = 1000 * median([shares[2] for shares in reloads])
        growth = f"{ours / before_ms:.1f}" if before_ms else "-"
        before_ms = ours
        shown = (f"{value:.1f}" for value in (ours, check, change, answers, reload))
        rows.append((count, *shown, f"{ours / check:.2f}", growth))
    shares = ("ours, ms", "haproxy -c, ms", "at run time, ms", "answers, ms", "or reload, ms")
    print_table(("nodes", *shares, "ours / check", "growth"), rows)


def one_pass(proxy: Proxy, port: int, balance: str) -> tuple[float, float, float, float]:
    """Change one node and make a pass; return the seconds of: ours, the check, the change or reload, answers."""
    proxy.record("web0", port)
    at_s: dict[str, float] = {}
    answers_s = [0.0]

    def ask(*words: Any) -> str:
        asked_s = time.perf_counter()
        answer = transport.ask(*words)
        # What is asked during the change or the reload is in their share already.
        answers_s[0] += 0.0 if "compared" in at_s else time.perf_counter() - asked_s
        return answer

    def on_step(step: str) -> None:
        at_s[step] = time.perf_counter()

    settings = proxy.settings.replace(balance=balance)
    started_s = time.perf_counter()
    with mock.patch.object(runtime, "ask", ask):
        outcome = reconcile(settings, lambda: None, on_step=on_step)
    whole_s = time.perf_counter() - started_s
    assert outcome.verdict in (Verdict.APPLIED, Verdict.RELOADED), outcome
    check_s = at_s["checked"] - at_s["applied"]
    change_s = at_s["applied"] - at_s["compared"]
    if outcome.verdict is Verdict.RELOADED:
        change_s = at_s["confirmed"] - at_s["published"]
    return whole_s - check_s - change_s - answers_s[0], check_s, change_s, answers_s[0]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
