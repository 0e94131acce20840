"""images/compose.yaml with Compose 1 and Compose 2, the files beside it with Compose 1.

COMPOSE=all runs all with both.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import workers
from containers.applications import build
from containers.cluster import FAIL_S, Balancer
from containers.engine import PREFIX, ROOT, Engine, need, run
from fakes.certificates import connect, see_certificate, write_pair
from integration.load import Load, run_load
from integration.proxy import wait_for

STEP_S = 240.0  # for some servers to come or go, on a busy machine
REPLACEMENTS = int(os.environ.get("REPLACEMENTS", "1"))
VERSIONS = {"1": "Compose 1", "2": "Compose 2"}
FURTHER = list(VERSIONS)[: None if os.environ.get("COMPOSE") == "all" else 1]
PROJECT = f"{PREFIX}-{os.getpid()}".replace("-", "")


class Compose:
    """A Compose project of files in `images/`: its command line, its balancers and the frontend's URL."""

    def __init__(self, engine: Engine, program: str, *files: str, **environ: str) -> None:
        self.engine = engine
        self._program = program
        self._files = [f"--file={ROOT / 'images' / file}" for file in files or ("compose.yaml",)]
        # Without a port number the engine chooses a free port.
        published = "FRONTEND", "STATS", "HTTPS", "FRONTEND2", "STATS2", "HTTPS2"
        self._environ = engine.environ | dict.fromkeys(published, "127.0.0.1:") | {"IMAGES": PREFIX} | environ

    def __call__(self, *words: str) -> str:
        """Run a Compose command with the profile of the second balancer; return what it prints, without warnings."""
        options = [*self._files, f"--project-name={PROJECT}", "--profile=two"]
        said = run([self._program, *options, *words], 120, self._environ)
        # Compose 2 warns of the key `version`, which Compose 1 needs.
        return "\n".join(line for line in said.splitlines() if not line.startswith("time="))

    def url(self) -> str:
        """Return the URL of the first balancer's frontend."""
        return f"http://{self('port', 'balancer', '80').split()[-1]}/"

    def balancer(self, name: str) -> Balancer:
        """Return a balancer of the project."""
        return Balancer(self.engine, name, f"{PROJECT}_default", self("ps", "-q", name).split()[-1])


def find_compose(version: str) -> str:
    """Return the path of Compose 1 or 2: Debian 12 has the one, Debian 13 the other."""
    need("docker-compose")
    installed = shutil.which("docker-compose")
    assert installed
    if run([installed, "version", "--short"], 20).startswith(version):
        return installed
    assert version == "2", "Compose 1 is needed, which Debian 12 has"
    directory = workers.run_dir() / "compose"
    with workers.locked("compose"):
        if not directory.exists():
            need("mmdebstrap")
            words = ["--quiet", "--variant=extract", "--include=docker-compose", "trixie"]
            run(["mmdebstrap", *words, f"{directory}.new"], 300)
            Path(f"{directory}.new").rename(directory)
    return str(directory / "usr" / "libexec" / "docker" / "cli-plugins" / "docker-compose")


@pytest.fixture(params=VERSIONS, ids=VERSIONS.get)
def program(request: pytest.FixtureRequest) -> str:
    """Return the path of Compose 1 or 2."""
    return find_compose(request.param)


@pytest.fixture(params=FURTHER, ids=VERSIONS.get)
def any_program(request: pytest.FixtureRequest) -> str:
    """Return the path of Compose 1: what a further file adds is the engine's matter, not Compose's."""
    return find_compose(request.param)


@contextlib.contextmanager
def removing(compose: Compose) -> Iterator[Compose]:
    """Yield a project; remove it with its volumes afterwards."""
    try:
        yield compose
    finally:
        compose("down", "--volumes", "--timeout=1")


@pytest.fixture
def compose(engine: Engine, program: str) -> Iterator[Compose]:
    """Yield the project of one service."""
    with removing(Compose(engine, program)) as compose:
        yield compose


def is_up(balancer: Balancer, count: int, service: str = "nodes") -> bool:
    """Return whether a balancer has this many servers in a service and all are up."""
    return list((balancer.views(service) or {}).values()) == ["UP"] * count


def test_both_versions_read_every_file(engine: Engine, program: str) -> None:
    """Each file beside compose.yaml is valid in Compose 1 and 2."""
    variables = {"CERTIFICATES": "/", "AUTOSCALE_CONFIG": "/", "DOCKER_SOCKET": "/", "AUTOSCALE_GID": "0"}
    for path in sorted((ROOT / "images").glob("compose.*.yaml")):
        compose = Compose(engine, program, "compose.yaml", path.name, APP_IMAGE="any", **variables)
        assert "balancer" in compose("config", "--services").split(), path.name


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


def test_replacing_all_web_applications_at_once_costs_no_request(compose: Compose) -> None:
    """`up` with a new image or, as here, `--force-recreate` stops all of them before, or while, it starts others."""
    compose("up", "--no-build", "--detach", "--scale", "webapp=5")
    balancers = [compose.balancer("balancer"), compose.balancer("balancer2")]
    for balancer in balancers:
        wait_for(lambda balancer=balancer: is_up(balancer, 5), "they serve", FAIL_S)
    old = set(compose("ps", "-q", "webapp").split())
    with (
        run_load(Load(balancers[0].address, 80, think_s=0.1, limit_s=60 + 120 * REPLACEMENTS), 5) as seen,
        run_load(Load(balancers[1].address, 80, think_s=0.1, limit_s=60 + 120 * REPLACEMENTS), 5) as seen2,
    ):
        for _ in range(REPLACEMENTS):
            wait_for(lambda: min(seen.ok_count, seen2.ok_count) > 10, "the load runs")
            again = "up", "--no-build", "--detach", "--scale", "webapp=5", "--no-deps", "--force-recreate", "webapp"
            compose(*again)
            new = set(compose("ps", "-q", "webapp").split())
            assert len(new - old) == 5
            old = new
            for balancer in balancers:
                wait_for(lambda balancer=balancer: is_up(balancer, 5), "the new ones serve", FAIL_S)
            print(f"{seen.ok_count} and {seen2.ok_count} requests", flush=True)
    assert (seen.failures, seen2.failures) == ([], [])


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


def test_a_further_file_adds_https_to_both_services(engine: Engine, any_program: str, tmp_path: Path) -> None:
    """With compose.https.yaml both balancers have the certificates of a mounted directory, also a renewed one."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    path = tmp_path / "shop.test.pem"

    def renew() -> str:
        certificate = write_pair(path, "shop.test")
        os.chown(path, 902, 902)
        return certificate

    first = renew()
    files = "compose.yaml", "compose.services.yaml", "compose.https.yaml"
    with removing(Compose(engine, any_program, *files, CERTIFICATES=str(tmp_path))) as compose:
        compose("up", "--no-build", "--detach", "--scale", "webapp=1", "--scale", "api=1")
        for name in ("balancer", "balancer2"):
            balancer = compose.balancer(name)
            for service in ("nodes", "api"):
                wait_for(functools.partial(is_up, balancer, 1, service), f"{service} is up", FAIL_S)
            endpoint = compose("port", name, "443").split()[-1]
            wait_for(lambda endpoint=endpoint: see_certificate(endpoint, "shop.test") == first, balancer.log, FAIL_S)
            for path_of, service in (("/", "webapp"), ("/api", "api")):
                with connect(endpoint, "shop.test") as connection, connection.makefile() as answer:
                    request = f"GET {path_of} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"
                    connection.sendall(request.encode())
                    said = answer.read()
                host = compose.engine("inspect", "--format={{.Config.Hostname}}", *compose("ps", "-q", service).split())
                assert said.startswith("HTTP/1.1 200")
                assert f'"host":"{host.strip()}"' in said
        second = renew()
        for name in ("balancer", "balancer2"):
            endpoint = compose("port", name, "443").split()[-1]
            wait_for(lambda endpoint=endpoint: see_certificate(endpoint, "shop.test") == second, "renewed", FAIL_S)


def test_a_second_file_adds_a_second_service(engine: Engine, any_program: str) -> None:
    """With compose.services.yaml each request gets to the nodes of its own service, also after a scaling."""
    with removing(Compose(engine, any_program, "compose.yaml", "compose.services.yaml")) as compose:
        for count in (2, 3):
            scale = "--scale", "webapp=2", "--scale", f"api={count}"
            compose("up", "--no-build", "--detach", "--no-recreate", *scale)
            for balancer in (compose.balancer("balancer"), compose.balancer("balancer2")):
                for service, wanted in (("nodes", 2), ("api", count)):
                    check = functools.partial(is_up, balancer, wanted, service)
                    wait_for(check, f"{wanted} servers of {service} are up", FAIL_S)
        for path, name, count in (("", "webapp", 2), ("api", "api", 3)):
            ids = compose("ps", "-q", name).split()
            hosts = set(compose.engine("inspect", "--format={{.Config.Hostname}}", *ids).split())
            url, close = compose.url() + path, {"Connection": "close"}
            answers = [requests.get(url, timeout=10, headers=close) for _ in range(12)]
            assert {answer.json()["host"] for answer in answers} == hosts
            assert len(hosts) == count


def test_a_load_makes_web_applications_come_and_go(engine: Engine, any_program: str, tmp_path: Path) -> None:
    """With compose.autoscale.yaml copies start under load and go after it, without a failure; `down` removes all."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    example = (ROOT / "images" / "examples" / "autoscale" / "services.toml").read_text()
    stem = f"webapp{os.getpid()}-"  # other tests share the engine
    for old, new in (('project = "images"', f'project = "{PROJECT}"'), ('slots = "webapp-"', f'slots = "{stem}"')):
        assert example.count(old) == 1
        example = example.replace(old, new)
    (tmp_path / "services.toml").write_text(example)
    socket = Path(engine.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    environ = {"AUTOSCALE_CONFIG": str(tmp_path), "DOCKER_SOCKET": str(socket)}
    environ["AUTOSCALE_GID"] = str(socket.stat().st_gid)
    mine = f"--filter=label=com.docker.compose.project={PROJECT}"
    with removing(Compose(engine, any_program, "compose.yaml", "compose.autoscale.yaml", **environ)) as compose:
        compose("up", "--no-build", "--detach", "balancer", "webapp")
        balancer = compose.balancer("balancer")

        def list_slots() -> list[str]:
            return sorted(name for name, view in (balancer.views() or {}).items() if view == "UP" and stem in name)

        def is_told() -> bool:
            told = balancer.exec("serf-haproxy", "status", user="serf-haproxy", is_checked=False)
            return "service nodes scales: 1 of 1 to 4 servers" in told

        wait_for(lambda: list_slots() == [f"{stem}1"], balancer.log, STEP_S)
        with run_load(Load(balancer.address, 80, work_us=200_000, limit_s=2 * STEP_S), 30) as crowd:
            wait_for(lambda: list_slots() == [f"{stem}{number}" for number in range(1, 5)], balancer.log, STEP_S)
        with run_load(Load(balancer.address, 80, think_s=0.2, limit_s=2 * STEP_S), 2) as calm:
            wait_for(lambda: len(list_slots()) == 1 and is_told(), balancer.log, STEP_S)
        assert (crowd.failures, calm.failures) == ([], [])
    assert engine("ps", "--all", "--quiet", mine).split() == []


def test_a_sidecar_makes_an_unchanged_application_a_node(engine: Engine, any_program: str) -> None:
    """compose.sidecar.yaml serves an image without the bundle; the sidecar leaves at its stop, and joins again."""
    environ = {"APP_IMAGE": build(engine, "plain"), "APP_PORT": "8080"}
    with removing(Compose(engine, any_program, "compose.yaml", "compose.sidecar.yaml", **environ)) as compose:
        compose("up", "--no-build", "--detach", "--scale", "webapp=0", "balancer", "app", "node", "webapp")
        balancer = compose.balancer("balancer")
        (app,), (node,) = (compose("ps", "-q", name).split() for name in ("app", "node"))
        wait_for(lambda: balancer.views() == {app[:12]: "UP"}, balancer.story, FAIL_S)
        assert requests.get(compose.url(), timeout=10).text == "served\n"
        compose("stop", "node")
        assert engine("inspect", "--format={{.State.ExitCode}}", node).strip() == "0"
        wait_for(lambda: app[:12] in balancer.members("left"), balancer.story, FAIL_S)
        # It is the last server, so the balancer keeps it while its health check succeeds.
        assert requests.get(compose.url(), timeout=10).text == "served\n"
        compose("start", "node")
        wait_for(lambda: app[:12] in balancer.members("alive"), balancer.story, FAIL_S)
