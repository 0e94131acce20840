"""The page in the browser: the time to draw it, and what one viewer costs the daemon and its web process.

Usage: .venv/bin/python tests/benchmarks/viewer.py [--counts 10 100 1000] [--opens 5] [--span-s 30] [--results DIR]

A real daemon with its web process and a HAProxy that sees so many servers up, with 100 requests a second for all of
them, and the page in Debian's Chromium. "open" is the CPU of the page's thread from the address to the drawn page:
document, script, first message, draw and layout. "draw" is all that the script does for a later message, by the clock,
of which the fastest counts, since Chromium, the requests and what is measured share the processors.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from many import requests, serving_many
from measure import Report, cpu_s, make_parser, median, memory_mib

import workers
from integration.browser import Tab, browsing
from integration.proxy import wait_for
from integration.test_web import Web, serving

RATE = 100.0
PACES = {"SERF_HAPROXY_CHECKS_PER_S": "50"}
DRAWN = "document.documentElement.dataset"


class Cost(NamedTuple):
    """What one viewer of the page costs.

    Attributes:
        open_ms: CPU of the page's thread until it has drawn the page, milliseconds, median.
        draw_ms: A later draw.
        web_share: CPU of the web process with one viewer, percent of a core.
        idle_share: Its CPU without a viewer.
        message_ms: Its CPU for one message, a reading included, milliseconds.
        daemon_share: CPU of the daemon with one viewer, percent of a core.
        daemon_idle_share: Its CPU without one.
        memory_mib: Resident memory of the web process with a viewer.
    """

    open_ms: float
    draw_ms: float
    web_share: float
    idle_share: float
    message_ms: float
    daemon_share: float
    daemon_idle_share: float
    memory_mib: float


def measure_shares(web: Web, process: psutil.Process, span_s: float) -> tuple[float, float]:
    """Return the CPU of the web process and of the daemon over some time, percent of a core."""
    pids = process.pid, web.daemon_pid
    before = [cpu_s(pid) for pid in pids]
    began_s = time.monotonic()
    time.sleep(span_s)
    took_s = time.monotonic() - began_s
    web_s, daemon_s = (cpu_s(pid) - earlier for pid, earlier in zip(pids, before, strict=True))
    return 100 * web_s / took_s, 100 * daemon_s / took_s


def read_thread_ms(tab: Tab) -> float:
    """Return the CPU that the page's thread has used so far, milliseconds."""
    found = {one["name"]: one["value"] for one in tab.call("Performance.getMetrics")["metrics"]}
    return 1000 * float(found["ThreadTime"])


def measure(web: Web, tab: Tab, options: argparse.Namespace, servers: int) -> Cost:
    """Return what one viewer costs."""
    process = web.find_process()
    idle_share, daemon_idle_share = measure_shares(web, process, options.span_s)
    open_ms, draw_ms = [], []
    tab.call("Performance.enable", timeDomain="threadTicks")
    for _ in range(options.opens):
        tab.open("about:blank")
        before_ms = read_thread_ms(tab)
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait(f"document.querySelector('#count').textContent === '{servers} of {servers}'")
        open_ms.append(read_thread_ms(tab) - before_ms)
        for number in range(2, 5):
            tab.wait(f"Number({DRAWN}.drawCount) >= {number}")
            draw_ms.append(float(tab.run(f"{DRAWN}.drawMs")))
    count = int(tab.run(f"{DRAWN}.drawCount"))
    web_share, daemon_share = measure_shares(web, process, options.span_s)
    message_ms = 10 * web_share * options.span_s / max(1, int(tab.run(f"{DRAWN}.drawCount")) - count)
    shares = web_share, idle_share, message_ms, daemon_share, daemon_idle_share
    return Cost(median(open_ms), min(draw_ms), *shares, memory_mib(process.pid)[0])


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("viewer", options)
    found: dict[int, Cost] = {}
    for count in options.counts:
        with (
            serving_many(count, **PACES) as proxy,
            serving(proxy, **PACES) as web,
            requests(proxy, RATE, keep_alive=True),
            browsing() as tab,
        ):
            wait_for(lambda: web.ask("/readyz").status == 200, "it is ready")
            found[count] = measure(web, tab, options, count)
            tab.open("about:blank")
    rows = [
        (
            f"{count:,}",
            *(f"{it:.0f}" for it in (cost.open_ms, cost.draw_ms)),
            *(f"{it:.2f}" for it in (cost.daemon_idle_share, cost.daemon_share, cost.idle_share, cost.web_share)),
            *(f"{it:.0f}" for it in (cost.message_ms, cost.memory_mib)),
        )
        for count, cost in found.items()
    ]
    header = ["servers", "open, ms", "draw, ms", "daemon alone, %", "daemon, one viewer, %"]
    header += ["web process alone, %", "web process, one viewer, %", "of a message, ms", "memory, MiB"]
    report.add_table("costs", header, rows)
    if 1000 in found:
        cost = found[1000]
        goal = "1,000 servers: the page is opened and drawn with less than 100 ms of the browser's thread"
        report.add_goal(goal, f"{cost.open_ms:.0f} ms", cost.open_ms < 100)
        text = f"{cost.daemon_share:.2f} %, and {cost.daemon_idle_share:.2f} % without"
        goal = "1,000 servers: the daemon uses less than 1 % of a core with one viewer"
        report.add_goal(goal, text, cost.daemon_share < 1)
    report.add_data(costs={count: cost._asdict() for count, cost in found.items()})
    report.write()


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--opens", type=int, default=5)
    parser.add_argument("--span-s", type=float, default=30.0)
    with tempfile.TemporaryDirectory() as shared:
        os.environ.setdefault(workers.RUN_DIR, shared)  # the browser may have to be installed
        main(parser.parse_args())
