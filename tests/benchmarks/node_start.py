"""How much later an application gets its first request as a node than alone, from `docker run` on.

Usage: .venv/bin/python tests/benchmarks/node_start.py [--applications nginx static musl] [--starts 10] [--results DIR]

Each application starts in turn without the node bundle, asked at its own address, and with it, asked through a balancer
that has no other server. It needs root, and a container engine or Debian's packages of one.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import requests
from measure import Report, make_parser, median

import workers
from containers.applications import build, start
from containers.cluster import FAIL_S, Balancer, Cluster, Container
from containers.engine import running_engine, stop_engine
from integration.proxy import wait_for

LATER_S = 0.5
_PAUSE_S = 0.005
# For each application: its own command, and its port.
OWN = {
    "nginx": (("nginx", "-g", "daemon off;"), 80),
    "static": (("/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"), 8080),
    "musl": (("/server",), 8080),
    "node": (("node", "express.js"), 3000),
}


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report = Report("node-start", options)
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
        os.environ[workers.RUN_DIR] = directory
        try:
            with running_engine() as engine, contextlib.closing(Cluster(engine)) as cluster:
                balancer = cluster.balancer(SERF_HAPROXY_FLAP_CUTOFF="0")
                wait_for(lambda: balancer.views() == {}, balancer.story, FAIL_S)
                rows = [(name, *measure(cluster, balancer, name, options.starts)) for name in options.applications]
        finally:
            stop_engine()
    table = [(name, *(f"{value_s:.2f}" for value_s in (own_s, node_s, node_s - own_s))) for name, own_s, node_s in rows]
    report.add_table("starts", ("application", "alone, s", "as a node, s", "later by, s"), table)
    for name, own_s, node_s in rows:
        goal = f"{name}: a node's first request at most {LATER_S} s later than the application's own"
        report.add_goal(goal, f"{node_s - own_s:.2f} s", node_s - own_s <= LATER_S)
    report.write()


def measure(cluster: Cluster, balancer: Balancer, application: str, count: int) -> tuple[float, float]:
    """Return the medians of the times to the first request: alone, and as a node, seconds."""
    own_s, node_s = [], []
    for number in range(count):
        own_s.append(start_alone(cluster, application))
        node_s.append(start_node(cluster, balancer, application, f"{application}{number}"))
    print(f"{application}: alone {sorted(own_s)}, as a node {sorted(node_s)}", flush=True)
    return median(own_s), median(node_s)


def start_alone(cluster: Cluster, application: str) -> float:
    """Start an application with its own entry point; return the time to its first request, seconds."""
    image = build(cluster.engine, application)
    (program, *words), port = OWN[application]
    began_s = time.monotonic()
    container = cluster.start("alone", image, f"--entrypoint={program}", command=words)
    took_s = wait_served(began_s, f"http://{container.address}:{port}/", container.log)
    cluster.remove(container)
    return took_s


def start_node(cluster: Cluster, balancer: Balancer, application: str, name: str) -> float:
    """Start an application as a node; return the time to the first request through the balancer, seconds."""
    url = balancer.url()
    began_s = time.monotonic()
    node: Container = start(cluster, application, name, "--env=APP_GRACE_S=0.5")
    took_s = wait_served(began_s, url, node.log)
    node.stop()  # a balancer keeps its last server until its health check fails
    cluster.remove(node)
    wait_for(lambda: not is_served(url), "the node is gone", FAIL_S)
    return took_s


def wait_served(began_s: float, url: str, describe: Callable[[], str]) -> float:
    """Wait until a URL answers with 200; return the time since the beginning, seconds."""
    while not is_served(url):
        if time.monotonic() > began_s + FAIL_S:
            raise AssertionError(describe())
        time.sleep(_PAUSE_S)
    return time.monotonic() - began_s


def is_served(url: str) -> bool:
    """Return whether a URL answers with 200."""
    try:
        return requests.get(url, headers={"Connection": "close"}, timeout=1).status_code == 200
    except requests.RequestException:
        return False


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--applications", nargs="+", choices=OWN, default=["nginx", "static", "musl"])
    parser.add_argument("--starts", type=int, default=10)
    main(parser.parse_args())
