"""Applications of other makers, each in an image with the node bundle."""

import functools
from pathlib import Path

from containers.cluster import CONFINED, Cluster, Container
from containers.engine import PREFIX, Engine

HERE = Path(__file__).parent
NO_RIGHTS = ("--read-only", "--tmpfs=/command/run", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# For each application: the options that it runs with, and the exit code with which it ends at its stop signal.
APPLICATIONS: dict[str, tuple[tuple[str, ...], int]] = {
    "nginx": ((), 0),
    "python": (NO_RIGHTS, 143),
    "static": ((*CONFINED, "--env=SERVICES=", "--env=APP_PORT=8080"), 143),
    "musl": (CONFINED, 7),
}


@functools.cache
def build(engine: Engine, name: str) -> str:
    """Build the image of an application; return its tag."""
    return engine.build(name, HERE / f"{name}.Dockerfile", HERE, f"--build-arg=NODE={PREFIX}/node")


def start(cluster: Cluster, application: str, name: str, *options: str, command: tuple[str, ...] = ()) -> Container:
    """Start an application as a node that joins lb1; a command replaces the image's own."""
    image = build(cluster.engine, application)
    words = ["--env=SERF_JOIN=lb1", *APPLICATIONS[application][0], *options]
    return cluster.start(name, image, *words, command=command)
