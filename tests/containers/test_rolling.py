"""Rolling replacement of web applications under load."""

import os
import threading
from collections.abc import Iterator

import pytest

from containers.cluster import FAIL_S, Balancer, Cluster, Container
from containers.conftest import MakeCluster
from integration.load import Load, run_load
from integration.proxy import wait_for

ROLLS = int(os.environ.get("ROLLS", "3"))
ROLL_S = 180.0  # at most; 8 s on an idle machine
STOP_S = 40  # 5 s on an idle machine
CLIENTS = 200
THINK_S = 0.3  # limits the load on the machine


class Fleet:
    """The web applications of a cluster, which `roll` replaces one after another."""

    def __init__(self, cluster: Cluster, balancer: Balancer, count: int) -> None:
        self.cluster = cluster
        self.balancer = balancer
        self.delay_ms = 0
        self.started_count = 0
        self.slowest_stop_s = 0.0
        self.exit_codes: set[int] = set()
        self.running: list[Container] = []
        for _ in range(count):
            self._start()
        balancer.wait_servers(*self.names())

    def names(self) -> list[str]:
        """Return the names of the running web applications."""
        return [web.name for web in self.running]

    def set_delay(self, delay_ms: int) -> None:
        """Set the delay of every request, in the running and all later containers."""
        self.delay_ms = delay_ms
        for web in self.running:
            self._slow(web)

    def roll(self) -> None:
        """Replace each container: start a new one, wait until it is served, stop the old one during the next start."""
        stops = []
        for old in self.running.copy():
            new = self._start()
            wait_for(lambda name=new.name: self.balancer.view(name) == "UP", f"{new.name} is served", FAIL_S)
            self._slow(new)
            self.running.remove(old)
            stops.append(threading.Thread(target=self._stop, args=(old,)))
            stops[-1].start()
        for stop in stops:
            stop.join(60)
        self.balancer.wait_servers(*self.names(), timeout_s=FAIL_S)

    def _start(self) -> Container:
        self.started_count += 1
        web = self.cluster.webapp(f"roll{self.started_count}")
        self.running.append(web)
        return web

    def _stop(self, web: Container) -> None:
        self.slowest_stop_s = max(self.slowest_stop_s, web.stop(f"--time={STOP_S}"))
        self.exit_codes.add(web.state["ExitCode"])
        self.cluster.remove(web)

    def _slow(self, web: Container) -> None:
        web.slow(self.delay_ms)


@pytest.fixture
def fleet(make_cluster: MakeCluster) -> Iterator[Fleet]:
    """Yield three web applications behind a balancer."""
    with make_cluster() as cluster:
        yield Fleet(cluster, cluster.balancer(), 3)


@pytest.mark.parametrize("delay_ms", [0, 300])
def test_rolling_replacements_lose_no_request(fleet: Fleet, delay_ms: int) -> None:
    """While all web applications are replaced repeatedly under 200 clients, every request is answered with 200."""
    fleet.set_delay(delay_ms)
    with run_load(Load(fleet.balancer.address, 80, think_s=THINK_S, limit_s=60 + ROLLS * ROLL_S), CLIENTS) as seen:
        wait_for(lambda: seen.ok_count > CLIENTS, "the load runs")
        for number in range(ROLLS):
            before = seen.ok_count
            fleet.roll()
            assert seen.ok_count > before + CLIENTS, f"the load ran during roll {number + 1}: {seen.failures[-3:]}"
            print(
                f"roll {number + 1}: {seen.ok_count} requests, {len(seen.failures)} failures; "
                f"slowest stop {fleet.slowest_stop_s:.1f} s",
                flush=True,
            )
    assert seen.failures == []
    assert len(seen.nodes) > 3  # a new container may get the address of a removed one
    # Exit code 137 would mean that a container did not end by itself, and was killed.
    assert fleet.exit_codes == {0}
