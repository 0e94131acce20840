"""Measured weights: the cost of one look at HAProxy's statistics, and of looking, at rest and under load.

Usage: .venv/bin/python tests/benchmarks/look.py [--counts 10 100 1000] [--span-s 10] [--results DIR]

A real HAProxy has so many servers, and the loop of the daemon looks at them whenever it finds that due. "busy" is with
requests at a low rate, a new connection each; "at rest" without any, after the pauses have become long. CPU is that of
the thread that looks, and that of HAProxy less what it uses without looks. All servers lead to one application.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from many import requests, serving_many
from measure import Report, make_parser, median, tree_cpu_s

from integration.proxy import Proxy
from serf_haproxy.balance.loop import make_balance
from serf_haproxy.config.parse import Parser

REST_S = 6.0  # after so long without requests the pauses have reached their longest
RATE = 20.0
MEASURED = {"SERF_HAPROXY_WEIGHTS": "measured", "SERF_HAPROXY_CHECKS_PER_S": "50"}


class Cost(NamedTuple):
    """What looking costs.

    Attributes:
        look_ms: The thread's CPU for one look, milliseconds, median.
        own_share: The thread's CPU, percent of a core.
        haproxy_share: HAProxy's CPU, percent of a core.
        count: Looks.
    """

    look_ms: float
    own_share: float
    haproxy_share: float
    count: int


def look(proxy: Proxy, span_s: float, settle_s: float) -> Cost:
    """Look for some time at all servers."""
    assert proxy.process
    balance = make_balance(proxy.settings)
    balance.follow({"nodes": {}}, Parser(), has_reloaded=True)
    looks_s: list[float] = []
    began_s = time.monotonic()
    begun = False
    cpu_s = haproxy_s = at_s = 0.0
    while time.monotonic() < began_s + settle_s + span_s:
        if not begun and time.monotonic() > began_s + settle_s:
            begun, at_s = True, time.monotonic()
            cpu_s, haproxy_s = time.thread_time(), tree_cpu_s(proxy.process.pid)
        time.sleep(min(1.0, max(0.0, balance.due_s() - time.monotonic())))
        if time.monotonic() >= balance.due_s():
            before_s = time.thread_time()
            balance.look()
            looks_s += [time.thread_time() - before_s] if begun else []
    took_s = time.monotonic() - at_s
    own, haproxy = time.thread_time() - cpu_s, tree_cpu_s(proxy.process.pid) - haproxy_s
    return Cost(1000 * median(looks_s), 100 * own / took_s, 100 * haproxy / took_s, len(looks_s))


def measure(proxy: Proxy, span_s: float) -> tuple[Cost, Cost]:
    """Return what looking costs, busy and at rest; HAProxy's CPU without looks is taken off."""
    assert proxy.process
    costs = []
    for settle_s, load in ((1.0, requests(proxy, RATE, keep_alive=False)), (REST_S, contextlib.nullcontext())):
        with load:
            before_s = tree_cpu_s(proxy.process.pid)
            time.sleep(span_s)
            idle_share = 100 * (tree_cpu_s(proxy.process.pid) - before_s) / span_s
            cost = look(proxy, span_s, settle_s)
        costs.append(cost._replace(haproxy_share=max(0.0, cost.haproxy_share - idle_share)))
    return costs[0], costs[1]


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("look", options)
    rows = []
    found: dict[int, tuple[Cost, Cost]] = {}
    for count in options.counts:
        with serving_many(count, **MEASURED) as proxy:
            found[count] = measure(proxy, options.span_s)
            for name, cost in zip(("busy", "at rest"), found[count], strict=True):
                shown = (f"{cost.look_ms:.2f}", f"{cost.own_share:.2f}", f"{cost.haproxy_share:.2f}")
                rows.append((f"{count:,}", name, *shown, f"{options.span_s / max(1, cost.count):.2f}"))
    header = ("servers", "state", "CPU of a look, ms", "of a core, %", "HAProxy, of a core, %", "pause, s")
    report.add_table("looks", header, rows)
    if 1000 in found:
        busy, rest = found[1000]
        text = f"{max(busy.look_ms, rest.look_ms):.1f} ms"
        report.add_goal("1,000 servers: a look takes less than 30 ms", text, max(busy.look_ms, rest.look_ms) < 30)
        text = f"{rest.own_share:.2f} % and {rest.haproxy_share:.2f} % in HAProxy"
        report.add_goal("1,000 servers: less than 2 % of a core at rest", text, rest.own_share < 2)
    report.add_data(looks={count: [cost._asdict() for cost in costs] for count, costs in found.items()})
    report.write()


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--span-s", type=float, default=10.0)
    main(parser.parse_args())
