"""Fixtures: the engine, the images, and clusters."""

import contextlib
from collections.abc import Callable, Generator, Iterator

import pytest

from containers.cluster import Balancer, Cluster, Container
from containers.crew import Crew, Stage
from containers.engine import Engine, running_engine
from containers.faults import build_netfilter

MakeCluster = Callable[[], contextlib.AbstractContextManager[Cluster]]
HAS_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Store for the fixtures whether a test has failed."""
    report = yield
    item.stash[HAS_FAILED] = item.stash.get(HAS_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield the container engine of this test run, with both images built."""
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def netfilter(engine: Engine) -> None:
    """Build the image that `wall` uses."""
    build_netfilter(engine)


@pytest.fixture(scope="module")
def make_cluster(engine: Engine) -> MakeCluster:
    """Return a context manager that creates an empty cluster and removes it."""

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


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[list[Container]]:
    """Yield a list of containers that are removed after the test."""
    nodes: list[Container] = []
    yield nodes
    for node in nodes:
        if node in cluster.containers:
            cluster.remove(node)


@pytest.fixture(scope="module")
def balancer(cluster: Cluster) -> Balancer:
    """Return the balancer of the module's cluster."""
    return cluster.balancer()


@pytest.fixture(scope="module")
def stage(engine: Engine) -> Iterator[Stage]:
    """Yield the stage that provides an intact crew for each test of a module."""
    stage = Stage(engine)
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture
def crew(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Crew]:
    """Yield a balancer and web applications, all served; the test must leave them like that.

    After a failed test the next one gets a new crew, so that one failure does not cause another.
    """
    crew = stage.take()
    yield crew
    if not request.node.stash.get(HAS_FAILED, False):
        stage.keep(crew)
