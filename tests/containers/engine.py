"""A container engine: the one that answers, or a new one with its own socket and data directory."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

import workers

ROOT = Path(__file__).parents[2]
BASE = "debian:trixie-slim"
PREFIX = "serf-haproxy-test"
_COMMAND_S = 120.0
_PULL_S = 60.0
_BUILD_S = 900.0
_START_S = 60.0
_DAEMONS: list[subprocess.Popen[bytes]] = []  # a Popen that Python collects while its process runs is a warning
_PACKAGES = {
    "docker": ["docker.io", "docker-cli"],  # Debian 12 has both in one package
    "dockerd": ["docker.io", "iptables"],
    "docker-compose": ["docker-compose"],
    "mmdebstrap": ["mmdebstrap", "debian-archive-keyring"],
    "iptables": ["iptables"],
    "chromium": ["chromium"],
    "gcc": ["gcc", "libc6-dev"],
    "redis-check-rdb": ["redis-tools"],
    "pebble": ["pebble"],
    "certbot": ["certbot"],
    "npm": ["npm"],
}


class Engine:
    """A Docker engine; everything that the tests start has their label.

    Args:
        environ: The environment of the command `docker`, which determines the engine.

    Attributes:
        label: The label.
        base: The base image of all others.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self.label = f"{PREFIX}={os.getpid()}"
        self.base = BASE

    def __call__(self, *words: str, timeout_s: float = _COMMAND_S, is_checked: bool = True) -> str:
        """Run a `docker` command; return its standard output and error."""
        return run(["docker", *words], timeout_s, self.environ, is_checked)

    def build(self, target: str, dockerfile: Path, context: Path, *options: str) -> str:
        """Build an image, one worker at a time: the later workers find it in the cache. Return its tag."""
        tag = f"{PREFIX}/{target}"
        words = ["build", "--quiet", "--network=host", f"--build-arg=BASE={self.base}", f"--file={dockerfile}"]
        with workers.locked("build"):
            self(*words, f"--tag={tag}", *options, str(context), timeout_s=_BUILD_S)
        return tag

    def remove_all(self) -> None:
        """Remove every container, network and volume with the label."""
        mine = f"--filter=label={self.label}"
        for kind, words in (
            ("ps", ["rm", "--force", "--volumes"]),
            ("network", ["network", "rm"]),
            ("volume", ["volume", "rm"]),
        ):
            listing = ["ps", "--all"] if kind == "ps" else [kind, "ls"]
            names = self(*listing, "--quiet", mine).split()
            if names:
                self(*words, *names)


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """Yield an engine with all images for the duration of a block; remove everything that was started in it.

    All workers of a test run use the same engine. The first worker that needs it starts it and builds the images;
    `stop_engine` stops it when the run ends.
    """
    note = workers.run_dir() / "engine.json"
    with workers.locked("engine"):
        if not note.exists():
            note.write_text(json.dumps(_try_prepare()))
    prepared = json.loads(note.read_text())
    if "fault" in prepared:
        pytest.fail(prepared["fault"])
    engine = Engine(prepared["environ"])
    engine.base = prepared["base"]
    try:
        yield engine
    finally:
        engine.remove_all()


def stop_engine() -> None:
    """Stop the engine that a worker of this test run has started, if any, and unmount what it leaves mounted."""
    directory = str(_engine_dir())
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        daemon = psutil.Process(int(Path(directory, "pid").read_text()))
        if daemon.name() == "dockerd":
            daemon.terminate()
            try:
                daemon.wait(_START_S)
            except psutil.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[1].startswith(f"{directory}/"):
            run(["umount", line.split()[1]], _COMMAND_S, is_checked=False)


def need(program: str) -> None:
    """Ensure that a program exists: install it as root on Debian, otherwise fail with the missing package."""
    with workers.locked("packages"):
        _install_missing(program)


def _install_missing(program: str) -> None:
    if shutil.which(program):
        return
    packages = _PACKAGES[program]
    if not Path("/etc/debian_version").exists() or os.geteuid() != 0:
        names = " ".join(packages)
        pytest.fail(f"{program} is missing, and only root on Debian can install it here; install {names}")
    run(["apt-get", "-qq", "update"], _BUILD_S)
    known = [name for name in packages if _succeeds(["apt-cache", "show", name], os.environ)]
    noninteractive = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-qq", "install", "--no-install-recommends", *known], _BUILD_S, noninteractive)


def ensure_base(engine: Engine) -> None:
    """Ensure that the engine has the base image: Debian's, or one built from Debian's packages under another name."""
    if engine("images", "--quiet", BASE) or _succeeds(["docker", "pull", BASE], engine.environ, _PULL_S):
        return
    engine.base = f"{PREFIX}/base"
    if engine("images", "--quiet", engine.base):
        return
    need("mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="base-") as directory:
        tar = os.path.join(directory, "base.tar")
        excluded = "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"
        run(["mmdebstrap", "--quiet", "--variant=minbase", *excluded, "trixie", tar], _BUILD_S)
        engine("import", tar, engine.base)


def run(argv: list[str], timeout_s: float, environ: Mapping[str, str] | None = None, is_checked: bool = True) -> str:
    """Run a program; return its standard output and error, or fail with them when its exit code is not 0."""
    completed = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
        env=environ,
        check=False,
    )
    assert not is_checked or completed.returncode == 0, f"{' '.join(argv)}: {completed.stdout}"
    return completed.stdout


def _answers(environ: Mapping[str, str]) -> bool:
    return _succeeds(["docker", "version", "--format={{.Server.Version}}"], environ)


def _succeeds(argv: list[str], environ: Mapping[str, str], timeout_s: float = _COMMAND_S) -> bool:
    with contextlib.suppress(FileNotFoundError, subprocess.TimeoutExpired):
        return subprocess.run(argv, env=environ, capture_output=True, timeout=timeout_s, check=False).returncode == 0
    return False


def _engine_dir() -> Path:
    return workers.run_dir() / "engine"


def _try_prepare() -> dict[str, Any]:
    """Return what the workers need to know about the engine, or why there is none; no worker tries again then."""
    try:
        engine = _answering_engine()
        ensure_base(engine)
        run(["make", "--directory", str(ROOT), "wheels"], 300)
        for target in ("node", "balancer", "webapp"):
            engine.build(target, ROOT / "images" / "Dockerfile", ROOT, f"--target={target}")
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 every worker fails with it
        return {"fault": f"no engine with the images: {error}"}
    return {"environ": engine.environ, "base": engine.base}


def _answering_engine() -> Engine:
    environ = dict(os.environ)
    if not _succeeds(["docker", "buildx", "version"], environ):
        environ["DOCKER_BUILDKIT"] = "0"  # use the legacy builder when buildx is not installed
    if _answers(environ):
        return Engine(environ)
    if not Path("/etc/debian_version").exists() or os.geteuid() != 0:
        pytest.fail(
            "no Docker engine answers, and only root on Debian can start a new one: start one or set DOCKER_HOST"
        )
    need("docker")
    need("dockerd")
    directory = _engine_dir()
    environ["DOCKER_HOST"] = f"unix://{directory}/docker.sock"
    daemon = _start_daemon(directory)
    deadline = time.monotonic() + _START_S
    while not _answers(environ):
        said = (directory / "log").read_text(errors="replace")[-2000:]
        assert daemon.poll() is None, f"dockerd has ended: {said}"
        assert time.monotonic() < deadline, f"dockerd does not answer: {said}"
        time.sleep(0.1)
    return Engine(environ)


def _start_daemon(directory: Path) -> subprocess.Popen[bytes]:
    directory.mkdir()
    argv = ["dockerd", f"--data-root={directory}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid"]
    # The default pools are enough for some thirty networks, and each worker has some.
    argv += ["--default-address-pool=base=10.201.0.0/16,size=24"]
    argv += [f"--host=unix://{directory}/docker.sock", "--bridge=none"]
    with open(directory / "log", "wb") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    _DAEMONS.append(daemon)
    return daemon
