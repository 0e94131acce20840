"""A balancer and web applications that tests share, as long as each test leaves them intact."""

import contextlib
import time
from collections.abc import Callable, Iterator

from containers.cluster import BACK_S, FAIL_S, JOIN_S, Cluster, Container
from containers.engine import Engine
from integration.faults import SUMMARY, Failures, Row
from integration.load import Load, run_load
from integration.proxy import wait_for

NAMES = ("web1", "web2", "web3", "web4")
CLIENTS = 10


class Crew:
    """A cluster of one balancer and web applications that are all served.

    Attributes:
        cluster: The cluster of the containers.
        balancer: The balancer, lb1.
        webs: The web applications by name; a test that replaces one stores the new one here.
        healed_s: The monotonic time at which the last injected fault ended.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        # The tests let the same nodes fail again and again. Without this, the balancer would damp them as flapping.
        self.balancer = cluster.balancer(SERF_HAPROXY_FLAP_CUTOFF="0")
        self.webs: dict[str, Container] = {name: cluster.webapp(name) for name in NAMES}
        self.balancer.wait_servers(*self.webs)

        self.healed_s = 0.0
        self._row = Row()
        self._is_haproxy_away = False

    @contextlib.contextmanager
    def fault(self, name: str, is_haproxy_away: bool = False) -> Iterator[None]:
        """Count a block as a fault in the summary; it is repaired when the crew is intact again."""
        self._row, self._is_haproxy_away = SUMMARY.setdefault(f"container: {name}", Row()), is_haproxy_away
        self._row.injected_count += 1
        try:
            yield
        finally:
            self.healed_s = time.monotonic()

    def count_healed(self) -> None:
        """Count in the summary that the crew has just become intact again."""
        self._row.healed_count += 1
        self._row.longest_wrong_s = max(self._row.longest_wrong_s, time.monotonic() - self.healed_s)

    @contextlib.contextmanager
    def load(self) -> Iterator[Load]:
        """Run clients of the balancer, with a new connection per request, for the duration of a block."""
        load = Load(self.balancer.address, 80, think_s=0.05, failures=Failures())
        with run_load(load, CLIENTS):
            wait_for(lambda: load.ok_count > 2 * CLIENTS, "the load runs")
            yield load
        if self._is_haproxy_away:
            self._row.away_count += len(load.failures)
        else:
            self._row.failed_count += len(load.failures)

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float = JOIN_S) -> None:
        """Wait until a condition holds; after timeout_s fail with `what` and the balancer's story."""
        wait_for(condition, lambda: f"{what}\n{self.balancer.story()}", timeout_s)

    def wait_members(self) -> None:
        """Wait until exactly these members are alive in the balancer's Serf."""
        alive = {self.balancer.name, *self.webs}
        self.wait(lambda: self.balancer.members("alive") == alive, f"{sorted(alive)} are alive", BACK_S)

    def check_intact(self) -> None:
        """Wait until Serf and HAProxy have exactly these, the daemon has nothing to do, and all get requests."""
        self.wait_members()
        self.balancer.wait_servers(*self.webs, timeout_s=FAIL_S)
        self.wait(self.balancer.is_right, "the daemon has nothing to do", FAIL_S)
        # A server that has just come up gets its first request only at its turn in HAProxy's round robin.
        self.wait(lambda: set(self.balancer.shares(3 * len(self.webs))) == set(self.webs), "all get requests")


class Stage:
    """Provides a crew for one test after another: a new one if the previous test did not leave it intact."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cluster: Cluster | None = None
        self._crew: Crew | None = None

    def take(self) -> Crew:
        """Return an intact crew; it is discarded unless `keep` gets it back."""
        crew, self._crew = self._crew, None
        if crew is None:
            self.close()
            self._cluster = Cluster(self._engine)
            crew = Crew(self._cluster)
        return crew

    def keep(self, crew: Crew) -> None:
        """Check that a crew is intact and keep it for the next test."""
        crew.check_intact()
        crew.count_healed()
        self._crew = crew

    def close(self) -> None:
        """Remove the crew."""
        if self._cluster:
            self._cluster.close()
        self._cluster = self._crew = None
