"""Measured weights of a service that is split between versions, with a real HAProxy and the real daemon."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from integration.measured import Stage, running_stage
from integration.proxy import Proxy, running_proxy, wait_for
from integration.test_daemon import running_daemon
from integration.test_measured import NAMES, RATE, SERVICE_S, port_of, weights
from integration.test_services import offer
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.haproxy.traffic import ask_for, read_traffic
from serf_haproxy.serf.wake import wake

VERSIONS = {"v1": NAMES[:3], "v2": NAMES[3:]}
COUNT = 600  # requests by which shares are judged


def write_split(directory: Path, **shares: int) -> None:
    """Write the services file."""
    split = ", ".join(f"{version} = {share}" for version, share in shares.items())
    (directory / "services.toml").write_text(f'[nodes]\nsplit = {{{split}}}\nweights = "measured"\n')


def total(proxy: Proxy, version: str) -> int:
    """Return the weights of a version's servers together. A look changes them one by one: read between two looks."""
    first = weights(proxy)
    second = weights(proxy)
    for _ in range(5):
        if first == second:
            break
        first, second = second, weights(proxy)
    return sum(second[name] for name in VERSIONS[version])


def count(proxy: Proxy) -> dict[str, int]:
    """Return how many requests each server has got."""
    traffic = read_traffic(ask(proxy.settings.runtime_socket, ask_for("nodes"), 5))
    return {name: one.started_count for (_, name), one in traffic.items()}


@pytest.fixture
def split(short_dir: Path) -> Iterator[tuple[Proxy, Stage]]:
    """Yield a balancer whose daemon runs, and five applications: three of the one version, two of the other."""
    write_split(short_dir, v1=75, v2=25)
    with running_stage(NAMES, SERVICE_S) as stage, running_proxy(short_dir, SERF_HAPROXY_BALANCE="roundrobin") as proxy:
        for version, names in VERSIONS.items():
            for name in names:
                offer(proxy, name, nodes=f"{stage[name].port}:{version}")
        with running_daemon(proxy):
            proxy.wait_up(*NAMES)
            wait_for(lambda: total(proxy, "v1") == 3 * total(proxy, "v2") > 50, lambda: str(weights(proxy)))
            yield proxy, stage


def test_a_split_stays_exact_while_a_server_is_slow(split: tuple[Proxy, Stage], short_dir: Path) -> None:
    """A slow server's part goes to others of its version alone, through a pass and a change of the split, and back."""
    proxy, stage = split
    whole = weights(proxy)
    stage["web1"].times = 10
    stage.load(port_of(proxy), RATE)
    wait_for(lambda: weights(proxy)["web1"] <= whole["web1"] // 10, lambda: str(weights(proxy)))
    before = count(proxy)
    wait_for(lambda: sum(count(proxy).values()) > sum(before.values()) + COUNT, "requests come")
    got = {name: number - before[name] for name, number in count(proxy).items()}
    first, number = sum(got[name] for name in VERSIONS["v1"]), sum(got.values())
    assert abs(first - 0.75 * number) <= 3 * math.sqrt(number * 0.75 * 0.25), got
    assert got["web1"] < 0.1 * first, got
    assert {name: weights(proxy)[name] for name in VERSIONS["v2"]} == {name: whole[name] for name in VERSIONS["v2"]}
    assert min(weights(proxy)[name] for name in ("web2", "web3")) > whole["web2"]
    assert proxy.run_pass().verdict is Verdict.UNCHANGED
    for _ in range(50):
        assert total(proxy, "v1") == 3 * total(proxy, "v2"), weights(proxy)
        time.sleep(0.02)
    write_split(short_dir, v1=60, v2=40)
    wake(proxy.settings.wake_fifo)
    wait_for(lambda: 2 * total(proxy, "v1") == 3 * total(proxy, "v2"), lambda: str(weights(proxy)))
    wait_for(lambda: weights(proxy)["web1"] <= weights(proxy)["web2"] // 10, lambda: str(weights(proxy)))
    assert 2 * total(proxy, "v1") == 3 * total(proxy, "v2")
    stage["web1"].times = 1
    wait_for(lambda: len({weights(proxy)[name] for name in VERSIONS["v1"]}) == 1, lambda: str(weights(proxy)))
    assert proxy.reload_count() == 0
    assert probe.runs_published(proxy.settings)


def test_a_total_that_another_hand_has_changed_is_mended(split: tuple[Proxy, Stage]) -> None:
    """Where the weights of a version have another total than the split says, they get it back, without any request."""
    proxy, _ = split
    whole = weights(proxy)
    assert probe.change(proxy.settings, ["set server nodes/web2 weight 3"]) == []
    wait_for(lambda: weights(proxy) == whole, lambda: str(weights(proxy)))
