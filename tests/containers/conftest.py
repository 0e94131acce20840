"""Fixtures: the engine, the images, and clusters."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from containers.cluster import Balancer, Cluster
from containers.engine import ROOT, Engine, ensure_base, run, running_engine

MakeCluster = Callable[[], contextlib.AbstractContextManager[Cluster]]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield an engine that has our two images."""
    with running_engine() as engine:
        ensure_base(engine)
        run(["make", "--directory", str(ROOT), "wheels"], 300)
        for target in ("balancer", "webapp"):
            engine.build(target, ROOT / "images" / "Dockerfile", ROOT, f"--target={target}")
        yield engine


@pytest.fixture(scope="module")
def make_cluster(engine: Engine) -> MakeCluster:
    """Return a context manager that makes an empty cluster and removes it."""

    @contextlib.contextmanager
    def make() -> Iterator[Cluster]:
        cluster = Cluster(engine)
        try:
            yield cluster
        finally:
            cluster.close()

    return make


@pytest.fixture(scope="module")
def cluster(make_cluster: MakeCluster) -> Iterator[Cluster]:
    """Yield the cluster that the tests of a module share, at first empty."""
    with make_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def balancer(cluster: Cluster) -> Balancer:
    """Return the balancer of that cluster."""
    return cluster.balancer()
