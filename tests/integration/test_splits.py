"""The split of a service between versions, with a real HAProxy: exact shares at run time."""

import contextlib
import http.client
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from fakes.web import Web, answering
from integration.proxy import Proxy, running_proxy
from integration.test_services import offer, wait_up
from serf_haproxy.control.outcome import LAST, SPLIT, Verdict
from serf_haproxy.control.report import read_report
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.policy.decision import State
from serf_haproxy.show.document import to_json

pytestmark = pytest.mark.usefixtures("time_limit")

COUNT = 500


class Api:
    """A service whose versions share its requests.

    Attributes:
        proxy: HAProxy.
        webs: The application of each node.
    """

    def __init__(self, proxy: Proxy, directory: Path, stack: contextlib.ExitStack) -> None:
        self.proxy, self._directory, self._stack = proxy, directory, stack
        self.webs: dict[str, Web] = {}

    def set_split(self, split: str) -> None:
        """Write the services file."""
        (self._directory / "services.toml").write_text(f'[api]\nroutes = ["api.test"]\nsplit = {{{split}}}\n')

    def join(self, name: str, options: str = "", status: str = "alive") -> None:
        """Let a node offer the service, or change its status."""
        if name not in self.webs:
            self.webs[name] = self._stack.enter_context(answering())
        offer(self.proxy, name, status, api=f"{self.webs[name].port}{options}")

    def settle(self, *names: str) -> None:
        """Make passes until these nodes are up and their weights are those of servers that are up."""
        self.proxy.run_pass()
        wait_up(self.proxy, *(("api", name) for name in names))
        self.proxy.run_pass()
        assert self.proxy.run_pass().verdict is Verdict.UNCHANGED

    def count(self, **groups: str) -> dict[str, int]:
        """Make requests; return how many each group of nodes got."""
        before = {name: web.count for name, web in self.webs.items()}
        client = http.client.HTTPConnection(self.proxy.settings.frontend_bind, timeout=10)
        for _ in range(COUNT):
            client.request("GET", "/", headers={"Host": "api.test"})
            assert client.getresponse().read() == b""
        client.close()
        got = {name: web.count - before[name] for name, web in self.webs.items()}
        return {group: sum(got[name] for name in names.split()) for group, names in groups.items()}

    def has_shares(self, counts: dict[str, int], **shares: float) -> bool:
        """Return whether each group got its share, within three standard deviations."""
        return all(
            abs(counts[group] - COUNT * share / 100) <= 3 * math.sqrt(COUNT * share / 100 * (1 - share / 100)) + 1
            for group, share in shares.items()
        )


@pytest.fixture
def api(short_dir: Path) -> Iterator[Api]:
    """Yield a service, with a services file that splits it."""
    with contextlib.ExitStack() as stack:
        (short_dir / "services.toml").write_text('[api]\nroutes = ["api.test"]\nsplit = {v1 = 95, v2 = 5}\n')
        yield Api(stack.enter_context(running_proxy(short_dir)), short_dir, stack)


def weights(api: Api) -> dict[str, int]:
    """Return the weights that HAProxy has."""
    running = probe.read_running(api.proxy.settings)
    assert running
    return {name: seen.weight for (_, name), seen in (running.servers or {}).items()}


def read_pid(api: Api) -> str:
    """Return the process id of the worker."""
    lines = ask(api.proxy.settings.runtime_socket, "show info", 5).splitlines()
    return next(line for line in lines if line.startswith("Pid: "))


def test_versions_get_their_shares_at_run_time(api: Api) -> None:
    """Each version gets its share after every change of the split, through joins and leaves, and without a reload."""
    for name in ("a1", "a2", "a3"):
        api.join(name, ":v1")
    api.join("b1", ":v2")
    api.settle("a1", "a2", "a3", "b1")
    assert api.proxy.reload_count() == 0
    worker = read_pid(api)
    assert weights(api) == {"a1": 19, "a2": 19, "a3": 19, "b1": 3}
    assert api.has_shares(counts := api.count(v1="a1 a2 a3", v2="b1"), v1=95, v2=5), counts
    for share in (25, 50, 0, 100):
        api.set_split(f"v1 = {100 - share}, v2 = {share}")
        api.settle()
        assert api.has_shares(counts := api.count(v1="a1 a2 a3", v2="b1"), v1=100 - share, v2=share), counts
    api.set_split("v1 = 90, v2 = 10")
    api.join("b2", ":v2:w3")
    api.settle("b2")
    counts = api.count(v1="a1 a2 a3", v2="b1 b2", b2="b2")
    assert api.has_shares(counts, v1=90, v2=10, b2=7.5), counts
    api.join("a1", ":v1", "left")
    api.join("a4", ":v1")
    api.settle("a4")
    assert api.has_shares(counts := api.count(v1="a2 a3 a4", a1="a1", v2="b1 b2"), v1=90, a1=0, v2=10), counts
    assert read_pid(api) == worker
    assert api.proxy.reload_count() == 0


def test_servers_that_are_down_take_no_share_away(api: Api) -> None:
    """Members of a version that are invented, or down, leave the share to those of the version that are up."""
    for name in ("a1", "a2"):
        api.join(name, ":v1")
    api.join("b1", ":v2")
    for number in range(20):
        offer(api.proxy, f"c{number}", api="9:v1")
    api.settle("a1", "a2", "b1")
    assert api.has_shares(counts := api.count(v1="a1 a2", v2="b1"), v1=95, v2=5), counts
    assert api.proxy.reload_count() == 0


def test_a_version_without_servers_waits(api: Api) -> None:
    """Its share goes to the others, which is told; the first server of it gets its share from its first moment."""
    api.join("a1", ":v1")
    api.settle("a1")
    outcome = api.proxy.run_pass()
    assert outcome.has_condition(SPLIT)
    assert outcome.conditions[0].reason.endswith("meanwhile: api/v2")
    assert to_json(read_report(api.proxy.settings))["conditions"][0]["name"] == SPLIT
    assert to_json(read_report(api.proxy.settings))["services"]["api"]["split"] == {"v1": 95, "v2": 5}
    assert api.count(v1="a1") == {"v1": COUNT}
    api.join("b1", ":v2")
    assert not api.proxy.run_pass().has_condition(SPLIT)
    wait_up(api.proxy, ("api", "b1"))
    assert api.has_shares(counts := api.count(v1="a1", v2="b1"), v1=95, v2=5), counts


def test_members_without_a_share_are_drained_but_never_the_last(api: Api) -> None:
    """A server without version, or of one without share, gets requests only while no other is up."""
    api.join("x1")
    api.join("x2", ":v9")
    api.settle("x1", "x2")
    outcome = api.proxy.run_pass()
    assert outcome.has_condition(LAST)
    counts = api.count(x="x1 x2")
    assert counts == {"x": COUNT}
    api.join("a1", ":v1")
    api.proxy.run_pass()
    wait_up(api.proxy, ("api", "a1"))
    assert not api.proxy.run_pass().has_condition(LAST)
    entries = read_report(api.proxy.settings).decision.entries
    assert entries["api", "x1"].state is State.DRAINING
    assert entries["api", "x1"].reason == "it says no version, and the service's split has shares for v1 v2"
    assert entries["api", "x2"].reason == "its version v9 has no share, and the service's split has shares for v1 v2"
    assert api.count(a="a1", x="x1 x2") == {"a": COUNT, "x": 0}
    api.join("a1", ":v1", "left")
    assert api.proxy.run_pass().has_condition(LAST)
    assert api.count(x="x1 x2") == {"x": COUNT}
    assert api.proxy.reload_count() == 0
