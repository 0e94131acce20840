"""Settings, secrets and exit codes of real containers."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from containers.cluster import CONFINED, FAIL_S, Balancer, Cluster, Container
from containers.conftest import MakeCluster
from containers.engine import PREFIX
from containers.keys import KEY, RPC_KEY, secret_options
from integration.proxy import wait_for


def test_keys_keep_strangers_out_and_appear_nowhere(make_cluster: MakeCluster) -> None:
    """With both keys the cluster works, a node without them is refused, and no key is visible."""
    with secret_options() as options, make_cluster() as cluster:
        balancer = cluster.balancer("lb1", *options, SERF_JOIN="web1")
        web = cluster.webapp("web1", *options)
        stranger = cluster.webapp("stranger")
        balancer.wait_servers("web1")
        wait_for(balancer.is_right, "the daemon has nothing to do", FAIL_S)
        wait_for(lambda: "Join failed" in stranger.log() or "Failed to join" in stranger.log(), "it is refused")
        assert balancer.serves("web1")
        for container in (balancer, web):
            seen = container.log() + container.spy("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
            assert "SERF_RPC_AUTH_FILE" in seen
            assert KEY not in seen
            assert RPC_KEY not in seen
            assert "alive" not in container.exec("serf", "members", is_checked=False)
            assert container.exec("/run/service/serf/data/ask", "members").count("alive") == 2
            shown = container.exec("stat", "-c", "%U %a", "/run/service/serf/data/secrets.json")
            assert shown.split() == ["serf", "600"]


@pytest.fixture
def settings_cluster(make_cluster: MakeCluster) -> Iterator[Cluster]:
    """Yield an empty cluster."""
    with make_cluster() as cluster:
        yield cluster


def test_an_invalid_secret_ends_the_container(settings_cluster: Cluster, tmp_path: Path) -> None:
    """A key with invalid characters ends the container with 100 and is not printed."""
    path = tmp_path / "key"
    path.write_text('x", "event_handlers": ["')
    path.chmod(0o644)
    web = settings_cluster.webapp(
        "web1", f"--volume={path}:/run/secrets/key:ro", SERF_ENCRYPT_KEY_FILE="/run/secrets/key"
    )
    assert web.wait_end() == 100
    assert "/run/secrets/key: must be one word" in web.log()
    assert "event_handlers" not in web.log()


def test_an_invalid_setting_ends_the_balancer(settings_cluster: Cluster) -> None:
    """An invalid setting ends the container with exit code 100 and a line that names it."""
    balancer = settings_cluster.balancer("lb1", SERF_HAPROXY_QUIET_S="soon")
    assert balancer.wait_end() == 100
    *_, reason, end = balancer.log().splitlines()
    assert reason == "haproxy: serf-haproxy: SERF_HAPROXY_QUIET_S='soon': must be 0 to 10 seconds"
    assert end == "haproxy: init: haproxy has failed permanently, last exit code 100: stopping the container"


def test_a_misspelt_setting_is_told(settings_cluster: Cluster) -> None:
    """`docker logs` names a variable that is no setting, and the nearest one."""
    balancer = settings_cluster.balancer("lb1", SERF_HAPROXY_QUIETS="1")
    told = "SERF_HAPROXY_QUIETS: there is no such setting; did you mean SERF_HAPROXY_QUIET_S?"
    wait_for(lambda: told in balancer.log(), balancer.log)


def test_a_read_only_root_without_a_place_to_write_ends_the_container(settings_cluster: Cluster) -> None:
    """`--read-only` without `--tmpfs /run` ends the container with 100 and one line that names the option."""
    options = [option for option in CONFINED if not option.startswith("--tmpfs")]
    broken = settings_cluster.start("broken", f"{PREFIX}/balancer", *options)
    assert broken.wait_end() == 100
    assert broken.log() == "init: /run/serf-haproxy cannot be made: mount a volume there, or a tmpfs on /run\n"


def test_an_idle_container_logs_nothing(settings_cluster: Cluster) -> None:
    """Health checks and looks at the cluster, which are clients of Serf's RPC, leave no line."""
    balancer = settings_cluster.balancer()
    wait_for(lambda: " alive " in balancer.serf("members", is_checked=False), "Serf answers")
    read_log = lambda: balancer.exec("cat", "/var/lib/serf-haproxy/log/serf/current", user="log")  # noqa: E731
    balancer.serf("force-leave", "nobody", is_checked=False)
    wait_for(lambda: "Force leaving node: nobody" in read_log(), "a later line of Serf's is there")
    assert "Accepted client" not in read_log() + balancer.log()


WRONG = [
    ("webapp", "APP_GRACE_S", "long", "allowed is a number of seconds"),
    ("webapp", "APP_STOP_S", "1.5", "allowed is a whole number of seconds"),
    ("webapp", "SERF_JOIN", "lb1 web2:99999", "'web2:99999': its port must be a whole number, 1 to 65535"),
    ("balancer", "HAPROXY_STOP_S", "soon", "allowed is a whole number of seconds"),
    ("balancer", "SERF_JOIN", "[fd00::1]:x", "'[fd00::1]:x': its port must be a whole number, 1 to 65535"),
]


def test_what_is_needed_late_is_checked_at_the_start(settings_cluster: Cluster) -> None:
    """A wrong time of the stop, and a wrong port in the join list, end the container with 100 and one line."""
    started = [
        settings_cluster.start(f"wrong{number}", f"{PREFIX}/{image}", *CONFINED, f"--env={name}={value}")
        for number, (image, name, value, _) in enumerate(WRONG)
    ]
    for container, (_, name, _, reason) in zip(started, WRONG, strict=True):
        assert container.wait_end() == 100
        assert container.log().count("\n") == 1
        assert container.log().startswith(f"init: {name}")
        assert reason in container.log()


def test_a_container_without_a_network_waits_for_one(settings_cluster: Cluster) -> None:
    """A container in no network says so in one line, goes on, and joins when it is connected."""
    balancer = settings_cluster.balancer()
    words = [*CONFINED, f"--label={settings_cluster.engine.label}", "--env=SERF_JOIN=lb1", "--hostname=late"]
    engine, network = settings_cluster.engine, settings_cluster.network
    created = engine("create", f"--network={network}", *words, f"{PREFIX}/webapp").strip()
    late = Container(engine, "late", network, created)
    settings_cluster.containers.append(late)
    engine("network", "disconnect", network, late.id)
    engine("start", late.id)
    told = "serf: level=WARNING msg="
    wait_for(lambda: f'{told}"this container has no address in a network' in late.log(), late.log)
    assert "Failed to start" not in late.log()
    engine("network", "connect", network, late.id)
    balancer.wait_servers("late")
    assert late.log().count(told) == 1
    assert "restarting Serf" not in late.log()


def test_commands_of_root_take_the_daemons_user(settings_cluster: Cluster) -> None:
    """`docker exec` needs no user: commands work as for the daemon's user, and node files can be listed and read."""
    balancer = settings_cluster.balancer()
    settings_cluster.webapp("web1")
    balancer.wait_servers("web1")
    assert "web1" in balancer.exec("serf-haproxy", "status", is_checked=False)
    for words in ("check", "plan", "maint set web1 --reason test", "maint list"):
        balancer.exec("serf-haproxy", *words.split())
    assert "Traceback" not in balancer.exec("serf-haproxy", "doctor", is_checked=False)
    nodes_dir = "/var/lib/serf-haproxy/nodes"
    assert balancer.exec("ls", nodes_dir).split() == ["lb1", "web1"]
    assert "web1" in balancer.exec("cat", f"{nodes_dir}/web1")
    assert balancer.exec("find", "/var/lib/serf-haproxy/state", "-user", "root", user="serf-haproxy") == ""


def test_an_invalid_setting_ends_the_web_application(settings_cluster: Cluster) -> None:
    """APP_PORT=http ends the web application's container with 100."""
    web = settings_cluster.webapp("web1", APP_PORT="http")
    assert web.wait_end() == 100
    assert "init: APP_PORT='http': allowed is a whole number, 1 to 65535" in web.log()
    assert "Traceback" not in web.log()


def test_an_advertised_address_is_used(settings_cluster: Cluster) -> None:
    """The balancer uses SERF_ADVERTISE as the address of the web application."""
    balancer = settings_cluster.balancer()
    balancer.wait_servers()
    settings_cluster.webapp("web1", SERF_ADVERTISE="192.0.2.7")
    config = lambda: balancer.exec("cat", "/run/config/haproxy.cfg")  # noqa: E731
    wait_for(lambda: "server web1 192.0.2.7:3000" in config(), balancer.story)


def test_a_required_service_that_keeps_failing_ends_the_container(settings_cluster: Cluster) -> None:
    """When Serf cannot bind, the container ends after five failures with Serf's exit code."""
    web = settings_cluster.webapp("web1", SERF_BIND="192.0.2.1:7946")
    assert web.wait_end() == 1
    assert "init: serf has failed permanently, last exit code 1" in web.log()


def test_stopping_finishes_requests_within_ten_seconds(settings_cluster: Cluster) -> None:
    """Application and balancer get three signals each to stop: a request of 3 s is answered and both end with 0."""
    balancer, web = settings_cluster.balancer(), settings_cluster.webapp("web1", SERF_TAGS="role=web weight=7")
    balancer.wait_servers("web1")
    web.slow(3000)
    answers: list[int] = []
    stops: list[float] = []
    client = _start(lambda: answers.append(requests.get(balancer.url(), timeout=30).status_code))
    wait_for(lambda: _in_flight(balancer) > 0, "the request is in flight")
    stopping = [_start(lambda container=container: stops.append(container.stop())) for container in (web, balancer)]
    wait_for(lambda: "leave" in web.log() and "leave" in balancer.log(), "both have begun to stop")
    for container in (web, balancer):
        container.engine("kill", "--signal=TERM", container.id)
        container.engine("kill", "--signal=INT", container.id)
    for thread in (client, *stopping):
        thread.join(30)
    assert answers == [200]
    assert max(stops) < 10
    assert [web.state["ExitCode"], balancer.state["ExitCode"]] == [0, 0]
    assert "s6-svscan: warning" not in web.log() + balancer.log()


def test_a_long_request_is_cut_before_docker_kills(settings_cluster: Cluster) -> None:
    """Application and balancer with a request of one minute end before Docker kills them."""
    balancer, web = settings_cluster.balancer(), settings_cluster.webapp("web1")
    balancer.wait_servers("web1")
    web.slow(60_000)
    endings: list[str] = []
    client = _start(lambda: endings.append(_ask_until_cut(balancer)))
    wait_for(lambda: _in_flight(balancer) > 0, "the request is in flight")
    stopping = [_start(container.stop) for container in (web, balancer)]
    for thread in (client, *stopping):
        thread.join(30)
    assert endings in (["cut"], ["502"], ["503"])
    assert [web.state["ExitCode"], balancer.state["ExitCode"]] == [0, 0]


def test_what_hangs_is_ended_before_docker_kills(settings_cluster: Cluster) -> None:
    """A frozen application, and a frozen daemon beside a request of one minute, take no time from Docker's ten seconds.

    Exit code 137 would mean that Docker killed the container.
    """
    balancer, web = settings_cluster.balancer(), settings_cluster.webapp("web1")
    balancer.wait_servers("web1")
    web.slow(60_000)
    client = _start(lambda: _ask_until_cut(balancer))
    wait_for(lambda: _in_flight(balancer) > 0, "the request is in flight")
    balancer.exec("s6-svc", "-p", "/run/service/daemon")
    web.exec("s6-svc", "-p", "/run/service/app")
    stopping = [_start(container.stop) for container in (web, balancer)]
    for thread in (client, *stopping):
        thread.join(60)
    assert [web.state["ExitCode"], balancer.state["ExitCode"]] == [0, 0]


@pytest.mark.parametrize("image", ["balancer", "webapp"])
def test_a_container_stopped_at_once_ends_at_once(settings_cluster: Cluster, tmp_path: Path, image: str) -> None:
    """SIGTERM that comes before there is anything to stop ends the container with 0: PID 1 does not lose it."""
    fifo, services_dir = tmp_path / "directories", tmp_path / "services.d"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)  # the balancer waits here for its first line
    for number in range(200):  # and the web application has much to copy
        (services_dir / f"service{number}").mkdir(parents=True)
    try:
        mounts = (f"{fifo}:/etc/serf-haproxy/directories:ro", f"{services_dir}:/etc/serf-haproxy/services.d:ro")
        options = (*CONFINED, f"--volume={mounts[image == 'webapp']}")
        container = settings_cluster.start("early", f"{PREFIX}/{image}", *options)
        begun = ("/init", "s6-svscan")
        wait_for(lambda: any(word in container.exec("cat", "/proc/1/cmdline") for word in begun), "it starts")
        container.stop("--time=30")
    finally:
        os.close(writer)
    assert container.state["ExitCode"] == 0


@pytest.mark.parametrize("is_shown", [False, True])
def test_each_log_line_has_the_name_of_its_service(settings_cluster: Cluster, is_shown: bool) -> None:
    """`docker logs` shows all services by name, requests only if asked; the files have all lines, with times."""
    balancer = settings_cluster.balancer("lb1", **({"ACCESS_LOG": "yes"} if is_shown else {}))
    balancer.wait_servers()
    requests.get(balancer.url("/logged"), timeout=10)
    names = {"haproxy:", "daemon:", "serf:"}
    written = lambda: balancer.exec("cat", "/var/lib/serf-haproxy/log/haproxy/current", user="log")  # noqa: E731
    wait_for(lambda: "/logged" in written(), "the request is logged")
    assert [line[:2] for line in written().splitlines() if "/logged" in line] == ["20"]
    wait_for(lambda: {line.split(" ")[0] for line in balancer.log().splitlines()} == names, "each service has logged")
    assert ("/logged" in balancer.log()) == is_shown


def test_former_names_of_the_daemon_work(settings_cluster: Cluster) -> None:
    """AGENT_USER and the path log/agent work, and `docker logs` has one deprecation line for each."""
    balancer = settings_cluster.balancer("lb1", AGENT_USER="agent")
    balancer.wait_servers()
    balancer.exec("/health")
    log_dir = "/var/lib/serf-haproxy/log"
    read_log = lambda: balancer.exec("cat", f"{log_dir}/agent/current", user="log")  # noqa: E731
    wait_for(lambda: "level=INFO" in read_log(), "the daemon has logged")
    deprecated = [line for line in balancer.log().splitlines() if "deprecated" in line]
    assert sorted(deprecated) == [
        f'daemon: level=WARNING msg="{log_dir}/agent is deprecated; use {log_dir}/daemon"',
        'daemon: level=WARNING msg="AGENT_USER is deprecated; use DAEMON_USER"',
    ]


def test_the_log_of_an_earlier_release_is_kept(settings_cluster: Cluster) -> None:
    """At a restart, a directory log/agent becomes log/daemon with its files, and a link keeps its path."""
    log_dir = "/var/lib/serf-haproxy/log"
    balancer = settings_cluster.balancer()

    def restart() -> None:
        balancer.engine("restart", balancer.id)
        balancer.wait_servers()

    def look(script: str) -> str:
        return balancer.exec("sh", "-c", f"cd {log_dir} && {script}", user="log", is_checked=False).strip()

    wait_for(lambda: "level=INFO" in look("cat daemon/current"), "the daemon has logged")
    restart()
    look("rm agent && mv daemon agent && echo earlier >agent/mine")
    restart()
    assert look("readlink agent && cat daemon/mine") == "daemon\nearlier"
    assert look("find . -name daemon -o -name agent | sort") == "./agent\n./daemon"
    assert balancer.log().count("log/agent is deprecated") == 2  # at the first start, and when it was renamed


def _in_flight(container: Container) -> int:
    stats = requests.get(f"http://{container.address}:1936/;csv", timeout=5).text.splitlines()
    row = next(line for line in stats if line.startswith("nodes,BACKEND"))
    return int(row.split(",")[4])


def _ask_until_cut(balancer: Balancer) -> str:
    try:
        return str(requests.get(balancer.url(), timeout=30).status_code)
    except requests.ConnectionError:
        return "cut"


def _start(job: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=job)
    thread.start()
    return thread
