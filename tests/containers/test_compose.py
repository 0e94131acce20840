"""images/compose.yaml with the installed version of Compose."""

import os
import subprocess
from collections.abc import Iterator

import pytest
import requests

from containers.cluster import FAIL_S, Balancer
from containers.engine import PREFIX, ROOT, Engine, need, run
from integration.load import Load, run_load
from integration.proxy import wait_for

PROJECT = f"{PREFIX}-{os.getpid()}".replace("-", "")


class Compose:
    """A Compose project: its command line, its balancers and the frontend's URL."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        v2 = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
        if not v2:
            need("docker-compose")
        self._argv = ["docker", "compose"] if v2 else ["docker-compose"]
        # Without a port number the engine chooses a free port.
        self._environ = engine.environ | dict.fromkeys(("FRONTEND", "STATS", "FRONTEND2", "STATS2"), "127.0.0.1:")
        self._environ |= {"IMAGES": PREFIX}

    def __call__(self, *words: str) -> str:
        """Run a Compose command with the profile of the second balancer."""
        options = [f"--file={ROOT / 'images' / 'compose.yaml'}", f"--project-name={PROJECT}", "--profile=two"]
        return run([*self._argv, *options, *words], 120, self._environ)

    def url(self) -> str:
        """Return the URL of the first balancer's frontend."""
        return f"http://{self('port', 'balancer', '80').split()[-1]}/"

    def balancer(self, name: str) -> Balancer:
        """Return a balancer of the project."""
        return Balancer(self.engine, name, f"{PROJECT}_default", self("ps", "-q", name).split()[-1])


@pytest.fixture
def compose(engine: Engine) -> Iterator[Compose]:
    """Yield the project; remove it with its volumes afterwards."""
    compose = Compose(engine)
    try:
        yield compose
    finally:
        compose("down", "--volumes", "--timeout=1")


def is_up(balancer: Balancer, count: int) -> bool:
    """Return whether a balancer has this many servers and all are up."""
    return list((balancer.views() or {}).values()) == ["UP"] * count


def test_new_web_applications_beside_the_old_ones_cost_no_request(compose: Compose) -> None:
    """Twice as many are started, then the old ones are stopped all at once: every request gets 200."""
    compose("up", "--no-build", "--detach", "--scale", "webapp=2")
    balancer = compose.balancer("balancer")
    wait_for(lambda: is_up(balancer, 2), "the old ones serve", FAIL_S)
    old = compose("ps", "-q", "webapp").split()
    with run_load(Load(balancer.address, 80, think_s=0.05), 5) as seen:
        wait_for(lambda: seen.ok_count > 10, "the load runs")
        compose("up", "--no-build", "--detach", "--no-recreate", "--scale", "webapp=4")
        wait_for(lambda: is_up(balancer, 4), "the new ones serve too", FAIL_S)
        compose.engine("stop", *old)
        wait_for(lambda: is_up(balancer, 2), "only the new ones are left", FAIL_S)
        since = seen.ok_count
        wait_for(lambda: seen.ok_count > since + 50, "requests afterwards")
    assert seen.failures == []


def test_compose_scales_and_stops(compose: Compose) -> None:
    """Two balancers serve three web applications, then five after scaling; `stop` ends all containers with 0."""
    compose("up", "--no-build", "--detach", "--scale", "webapp=3")
    first, second = compose.balancer("balancer"), compose.balancer("balancer2")
    for count in (3, 5):
        compose("up", "--no-build", "--detach", "--no-recreate", "--scale", f"webapp={count}")
        for balancer in (first, second):
            wait_for(
                lambda balancer=balancer, count=count: list((balancer.views() or {}).values()) == ["UP"] * count,
                "UP",
                FAIL_S,
            )
    assert requests.get(compose.url(), timeout=10).json()["hello"] == "world!"
    compose("stop")
    mine = f"--filter=label=com.docker.compose.project={PROJECT}"
    ended = compose.engine("ps", "--all", mine, "--format={{.Status}}").splitlines()
    assert [status.partition(")")[0] for status in ended] == ["Exited (0"] * 7
