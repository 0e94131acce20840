"""Fixtures: the engine, the images, and clusters."""

import contextlib
from collections.abc import Callable, Generator, Iterator

import pytest

from containers.cluster import Balancer, Cluster
from containers.crew import Crew, Stage
from containers.engine import Engine, running_engine
from containers.faults import build_netfilter

MakeCluster = Callable[[], contextlib.AbstractContextManager[Cluster]]
HAS_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep for the fixtures whether a test has failed."""
    report = yield
    item.stash[HAS_FAILED] = item.stash.get(HAS_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield the engine of this test run, which has our two images."""
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def netfilter(engine: Engine) -> None:
    """Have the image that walls are made with."""
    build_netfilter(engine)


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


@pytest.fixture(scope="module")
def stage(engine: Engine) -> Iterator[Stage]:
    """Yield what has a whole crew for each test of a module."""
    stage = Stage(engine)
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture
def crew(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Crew]:
    """Yield a balancer and web applications, all served; the test has to leave them so.

    A test that fails leaves them to nobody: the next one gets a new crew, so that no failure causes another one.
    """
    crew = stage.take()
    yield crew
    if not request.node.stash.get(HAS_FAILED, False):
        stage.keep(crew)
