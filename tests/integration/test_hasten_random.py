"""A few members ahead of passes, and passes alone: the same after random sequences, with a real HAProxy for each.

RANDOM_CHANGES=500 makes 500 changes, RANDOM_SEED=N repeats them.
"""

import os
import random
import time
from collections.abc import Collection
from pathlib import Path

import probe
from fakes.web import answering
from integration.proxy import Proxy, running_proxy, wait_for
from serf_haproxy.control.outcome import Outcome
from serf_haproxy.control.reconcile import Reconciler, reconcile
from serf_haproxy.serf.events import ALIVE, FAILED, LEAVING, LEFT, Member, make_member
from serf_haproxy.serf.listing import Members
from serf_haproxy.serf.roster import Roster
from serf_haproxy.services import Key

CHANGE_COUNT = int(os.environ.get("RANDOM_CHANGES", "30"))
SEED = int(os.environ.get("RANDOM_SEED") or random.randrange(2**32))
NAMES = [f"web{number}" for number in range(1, 13)]
# Rules that go by the time of each change are tested elsewhere: passes alone hear of a change later.
CALM = {"SERF_HAPROXY_GUARD_HOLD_S": "0", "SERF_HAPROXY_FLAP_CUTOFF": "1000", "SERF_HAPROXY_RELOAD_INTERVAL_S": "0"}
Servers = dict[Key, tuple[str, int, bool]]


class Cluster:
    """What Serf says, and two balancers that hear it."""

    def __init__(self, generator: random.Random, ports: tuple[int, int], proxies: tuple[Proxy, Proxy]) -> None:
        self._generator, self._ports = generator, ports
        self.members: Members = {}
        self.quick, self.slow = proxies
        self.reconciler = Reconciler(self.quick.settings)
        self.hastened_count = 0
        for name in NAMES[:6]:
            self.members[name] = ALIVE, self._make(name)

    def _make(self, name: str, **tags: str) -> Member:
        return make_member(name, "127.0.0.1", {"role": "web", "port": str(self._ports[0])} | tags)

    def change(self) -> set[str]:
        """Change one to three members; return their names."""
        names = set(self._generator.sample(NAMES, self._generator.choice([1, 1, 1, 2, 3])))
        for name in names:
            kind = self._generator.choice(
                ["alive", "alive", "weight", "drain", "leave", "leaving", "fail", "port", "role"]
            )
            tags: dict[str, dict[str, str]] = {
                "weight": {"weight": str(self._generator.choice([0, 1, 7, 100]))},
                "drain": {"drain": "true"},
                "port": {"port": str(self._ports[1])},
                "role": {"role": "db"},
            }
            status = {"leave": LEFT, "leaving": LEAVING, "fail": FAILED}.get(kind, ALIVE)
            self.members[name] = status, self._make(name, **tags.get(kind, {}))
        return names

    def ask(self) -> Roster:
        """Return all that Serf knows."""
        return Roster(time.time_ns(), "lb", dict(self.members))

    def ask_some(self, names: Collection[str]) -> tuple[int, Members]:
        """Return what Serf knows of some members."""
        return time.time_ns(), {name: self.members[name] for name in names if name in self.members}

    def make_pass(self) -> tuple[Outcome, Outcome]:
        """Make a pass at each balancer: with its memory, and with none."""
        return self.reconciler.reconcile(self.ask), reconcile(self.slow.settings, self.ask)

    def settle(self) -> None:
        """Make passes until nothing is left to do, and wait until HAProxy has seen which servers answer."""

        def is_settled() -> bool:
            self.make_pass()
            lines = [self._published(proxy) for proxy in (self.quick, self.slow)]
            seen = [read_servers(proxy) for proxy in (self.quick, self.slow)]
            are_up = all(views_up(proxy) >= {key[1] for key in seen[0]} for proxy in (self.quick, self.slow))
            return lines[0] == lines[1] and seen[0] == seen[1] and are_up

        wait_for(is_settled, lambda: f"both agree: {read_servers(self.quick)} {read_servers(self.slow)}; {SEED=}")

    @staticmethod
    def _published(proxy: Proxy) -> list[str]:
        text = Path(proxy.settings.config_path).read_text()
        return [line for line in text.splitlines() if line.strip().startswith("server web")]


def read_servers(proxy: Proxy) -> Servers:
    """Return endpoint and weight of HAProxy's servers, and whether each is set aside."""
    running = probe.read_running(proxy.settings)
    servers = (running and running.servers) or {}
    return {key: (one.endpoint, one.weight, one.is_maintained or one.is_drained) for key, one in servers.items()}


def views_up(proxy: Proxy) -> set[str]:
    """Return the servers that HAProxy sees up or draining."""
    views = probe.read_servers(proxy.settings) or {}
    return {name for name, view in views.items() if view.status.startswith(("UP", "DRAIN"))}


def test_both_ways_come_to_the_same(short_dir: Path) -> None:
    """After random changes HAProxy has at once what passes alone come to, and in the end both are equal."""
    (short_dir / "quick").mkdir()
    (short_dir / "slow").mkdir()
    with (
        answering() as web,
        answering() as other,
        running_proxy(short_dir / "quick", **CALM) as quick,
        running_proxy(short_dir / "slow", **CALM) as slow,
    ):
        cluster = Cluster(random.Random(SEED), (web.port, other.port), (quick, slow))
        cluster.settle()
        for number in range(CHANGE_COUNT):
            names = cluster.change()
            is_done = cluster.reconciler.hasten(names & cluster.members.keys(), cluster.ask_some)
            cluster.hastened_count += is_done
            if is_done:
                ahead = read_servers(quick)
                reconcile(slow.settings, cluster.ask)
                later = read_servers(slow)
                for key in later.keys() | ahead.keys():
                    used = ahead.get(key, ("", 0, True)), later.get(key, ("", 0, True))
                    # A pass may already have removed what gets no request.
                    assert used[0] == used[1] or not (used[0][1] or used[1][1]), f"{number}: {key} {used}; {SEED=}"
            if number % 2 or not is_done:
                cluster.settle()
        cluster.settle()
        assert cluster.hastened_count > CHANGE_COUNT // 10
