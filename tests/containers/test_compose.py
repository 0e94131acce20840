"""images/compose.yaml with the installed version of Compose."""

import os
import subprocess
from collections.abc import Iterator

import pytest
import requests

from containers.cluster import FAIL_S, Balancer
from containers.engine import PREFIX, ROOT, Engine, need, run
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
