"""Applications of other makers, each in an image with the node bundle."""

import functools
import shutil
import sys
import tempfile
from pathlib import Path

from containers.cluster import CONFINED, Cluster, Container
from containers.engine import PREFIX, Engine, need, run

HERE = Path(__file__).parent
NO_RIGHTS = ("--read-only", "--tmpfs=/command/run", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# For each application: the options that it runs with, and the exit code with which it ends at its stop signal.
APPLICATIONS: dict[str, tuple[tuple[str, ...], int]] = {
    "nginx": ((), 0),
    "python": (NO_RIGHTS, 143),
    "static": ((*CONFINED, "--env=SERVICES=", "--env=APP_PORT=8080"), 143),
    "musl": (CONFINED, 7),
}
# Servers with packages of npm and PyPI, which an index has to provide: on demand.
OTHERS: dict[str, tuple[tuple[str, ...], int]] = {"node": (NO_RIGHTS, 0), "gunicorn": (NO_RIGHTS, 0)}
_ALL = APPLICATIONS | OTHERS
_FETCHES = {
    "node": ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "express@5.1.0", "--prefix"),
    "gunicorn": (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "gunicorn==23.0.0", "--target"),
}
_FETCH_S = 300.0


def exit_code(application: str) -> int:
    """Return the exit code with which an application ends at its stop signal."""
    return _ALL[application][1]


@functools.cache
def build(engine: Engine, name: str) -> str:
    """Build the image of an application; return its tag."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as directory:
        context = shutil.copytree(HERE, Path(directory, "context"), ignore=shutil.ignore_patterns("__pycache__"))
        if name in _FETCHES:
            need(_FETCHES[name][0])
            run([*_FETCHES[name], str(context / "packages")], _FETCH_S)
        return engine.build(name, HERE / f"{name}.Dockerfile", context, f"--build-arg=NODE={PREFIX}/node")


def start(cluster: Cluster, application: str, name: str, *options: str, command: tuple[str, ...] = ()) -> Container:
    """Start an application as a node that joins lb1; a command replaces the image's own."""
    image = build(cluster.engine, application)
    words = ["--env=SERF_JOIN=lb1", *_ALL[application][0], *options]
    return cluster.start(name, image, *words, command=command)
