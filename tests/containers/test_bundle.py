"""The node bundle in images of other makers: joined, served, stopped, killed, replaced under load."""

import os

import pytest
import requests

from containers.applications import APPLICATIONS, NO_RIGHTS, OTHERS, build, exit_code, start
from containers.cluster import CONFINED, FAIL_S, Balancer, Cluster, Container
from containers.engine import PREFIX, Engine
from integration.load import Load, run_load
from integration.proxy import wait_for

ROLLS = int(os.environ.get("ROLLS", "1"))
ROLLED = [*APPLICATIONS, *OTHERS] if "ROLLS" in os.environ else [*APPLICATIONS]
BUNDLE_BYTES = 20_000_000
NODE_KIB = 25 * 1024
PSS = (
    "for p in /proc/[0-9]*; do kib=$(sed -n 's/^Pss: *\\([0-9]*\\).*/\\1/p' $p/smaps_rollup 2>/dev/null); "
    "[ -z \"$kib\" ] || echo $kib $(tr '\\0\\n' '  ' <$p/cmdline); done"
)


@pytest.fixture(scope="module")
def balancer(cluster: Cluster) -> Balancer:
    """Return the balancer of the module's cluster."""
    return cluster.balancer(SERF_HAPROXY_FLAP_CUTOFF="0")


def send(node: Container, signal: str, beginning: str, user: str = "0") -> None:
    """Send a signal to the processes of a node whose command lines begin so."""
    look = f"tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q '^{beginning}' && kill -{signal} ${{p#/proc/}}"
    node.exec("/command/sh", "-c", f"for p in /proc/[0-9]*; do {look}; done; true", user=user)


@pytest.mark.parametrize("application", ROLLED)
def test_an_application_is_replaced_without_loss(
    cluster: Cluster, balancer: Balancer, nodes: list[Container], application: str
) -> None:
    """Two nodes join, serve, and are replaced one by one under load; one that is killed is soon out of the rotation."""
    names = [f"{application}{number}" for number in range(2 + ROLLS)]
    nodes += [start(cluster, application, name) for name in names[:2]]
    balancer.wait_servers(*names[:2], timeout_s=FAIL_S)
    assert requests.get(balancer.url(), timeout=10).text == "served\n"
    with run_load(Load(balancer.address, 80, think_s=0.05, limit_s=60 + 120 * ROLLS), 10) as seen:
        for number in range(ROLLS):
            nodes.append(start(cluster, application, names[2 + number]))
            wait_for(lambda: balancer.view(nodes[-1].name) == "UP", nodes[-1].log, FAIL_S)
            old = nodes[number]
            before = seen.ok_count
            old.stop()
            assert old.state["ExitCode"] == exit_code(application), old.log()
            wait_for(lambda before=before: seen.ok_count > before + 50, "the load runs")
            print(f"replacement {number + 1}: {seen.ok_count} requests, {len(seen.failures)} failures", flush=True)
    assert seen.failures == []
    survivor, killed = nodes[-1], nodes[-2]
    killed.engine("kill", killed.id)
    wait_for(lambda: balancer.view(killed.name) in ("", "DOWN", "MAINT"), "the killed one is out", FAIL_S)
    assert requests.get(balancer.url(), timeout=10).text == "served\n"
    survivor.stop()
    assert survivor.state["ExitCode"] == exit_code(application)


def test_the_bundle_leaves_an_image_as_it_is(engine: Engine) -> None:
    """It has no file outside its own places, so users, logs and setuid bits of an image stay; it has at most 20 MB."""
    assert int(engine("image", "inspect", "--format={{.Size}}", f"{PREFIX}/node").split()[-1]) <= BUNDLE_BYTES
    explore = ("run", "--rm", "--network=none", "--entrypoint=/command/sh")
    places = "find / -xdev ! -type d ! -path '/dev/*' ! -path '/proc/*' ! -path '/sys/*'"
    made_by_engine = {".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}
    found = {line.strip("/") for line in engine(*explore, f"{PREFIX}/node", "-c", places).splitlines()} - made_by_engine
    assert {path for path in found if not path.startswith(("command/", "etc/serf-haproxy/"))} == {"init"}
    kept = engine(*explore, build(engine, "nginx"), "-c", "cat /var/log/nginx/kept; find /usr/bin/su -perm /4000")
    assert kept.split() == ["kept", "/usr/bin/su"]


def test_the_application_is_what_the_image_says(cluster: Cluster, nodes: list[Container]) -> None:
    """It has the image's user, directory and variables, also odd ones; output and exit code are the container's."""
    script = "import os; print(os.getuid(), os.getcwd(), *map(os.getenv, ['SITE.NAME', 'PATH'])); raise SystemExit(42)"
    node = start(cluster, "python", "said", command=("python3", "-c", script))
    nodes.append(node)
    assert node.wait_end() == 42
    said = [line for line in node.log().splitlines() if not line.startswith(("check: ", "serf: ", "join: "))]
    assert sorted(said) == [
        "1234 /srv/site two words /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "init: the application has ended with exit code 42: stopping the container",
    ]


def test_a_node_is_small_and_keeps_the_applications_secrets_apart(
    cluster: Cluster, balancer: Balancer, nodes: list[Container]
) -> None:
    """All processes beside the application have at most 25 MB, and none of them the application's variables."""
    node = start(cluster, "python", "small")
    nodes.append(node)
    balancer.wait_servers("small")
    rows = [line.partition(" ")[::2] for line in node.spy(PSS).splitlines() if line[:1].isdigit()]
    beside = {argv: int(kib) for kib, argv in rows if "http.server" not in argv and "smaps_rollup" not in argv}
    assert any(argv.startswith("serf agent") for argv in beside)
    used = sum(int(kib) for kib, argv in rows if argv in beside)
    assert used <= NODE_KIB, beside
    print(f"{used} KiB", flush=True)
    seen = node.spy("grep -l hunter2 /proc/[0-9]*/environ | wc -l")
    assert seen.split()[-1] == "1"


def test_a_service_that_does_not_answer_leaves_the_rotation(
    cluster: Cluster, balancer: Balancer, nodes: list[Container]
) -> None:
    """A node that hangs gets the tag drain, and loses it when it answers again; it stays a member."""
    node = start(cluster, "python", "hanging")
    nodes.append(node)
    balancer.wait_servers("hanging")

    def tags() -> str:
        return next(line for line in balancer.serf("members").splitlines() if line.startswith("hanging "))

    send(node, "STOP", "python3", user="1234")
    wait_for(lambda: "drain=true" in tags(), node.log, FAIL_S)
    assert " alive " in tags()
    assert "no answer within 2 s; it gets no new requests until it answers" in node.log()
    send(node, "CONT", "python3", user="1234")
    wait_for(lambda: "drain" not in tags(), node.log, FAIL_S)
    balancer.wait_servers("hanging", timeout_s=FAIL_S)


def test_each_of_several_services_is_watched(cluster: Cluster, balancer: Balancer, nodes: list[Container]) -> None:
    """SERVICES announces each by a tag of its own; one that dies is drained alone."""
    services = ("--env=SERVICES=shop=8080:w5 files=8081/index.html", "--env=APP_PORT=")
    node = start(cluster, "static", "several", *services)
    nodes.append(node)
    wait_for(lambda: "svc.files=8081,svc.shop=8080:w5" in balancer.serf("members", is_checked=False), node.log, FAIL_S)
    shown = node.exec("/command/ask", "members", user="0").splitlines()
    assert {line for line in shown if line.startswith(("lb1 ", "several "))} <= set(
        balancer.serf("members").splitlines()
    )
    assert len(shown) >= 2
    send(node, "TERM", "httpd -p 8081")
    wait_for(
        lambda: "svc.files=8081:drain,svc.shop=8080:w5" in balancer.serf("members", is_checked=False), node.log, FAIL_S
    )


HTTPD = ("/busybox", "httpd", "-f", "-p", "8080", "-h", "/www")
WRONG: dict[str, tuple[tuple[str, ...], tuple[str, ...], int, str]] = {
    "no port": (("--env=APP_PORT=",), HTTPD, 100, "init: APP_PORT is missing: set it to the port of the application"),
    "a word as port": (
        ("--env=APP_PORT=http",),
        HTTPD,
        100,
        "init: APP_PORT='http': allowed is a whole number",
    ),
    "a word as time": (
        ("--env=APP_GRACE_S=long",),
        HTTPD,
        100,
        "init: APP_GRACE_S='long': allowed is a number",
    ),
    "a wrong service": (("--env=SERVICES=shop",), HTTPD, 100, "init: SERVICES: 'shop': allowed is NAME=PORT"),
    "a URL as address": (
        ("--env=APP_ADDRESS=http://shop",),
        HTTPD,
        100,
        "init: APP_ADDRESS='http://shop': allowed is a host name or an IP address",
    ),
    "loopback as address": (
        ("--env=APP_ADDRESS=127.0.0.1",),
        HTTPD,
        100,
        "init: APP_ADDRESS='127.0.0.1': balancers cannot reach an application there",
    ),
    "two addresses": (
        ("--env=APP_ADDRESS=shop", "--env=SERF_TAGS=role=web addr=10.7.0.5"),
        HTTPD,
        100,
        "init: APP_ADDRESS: SERF_TAGS has a tag addr too; remove one",
    ),
    "a wrong check": (("--env=APP_CHECK=health",), HTTPD, 100, "init: APP_CHECK='health': allowed is a path"),
    "a wrong port in the join list": (
        ("--env=SERF_JOIN=lb1:99999",),
        HTTPD,
        100,
        "init: SERF_JOIN: 'lb1:99999': its port must be a whole number",
    ),
    "the port of Serf": (
        ("--env=APP_PORT=7946",),
        HTTPD,
        100,
        "init: port=7946: Serf has this port too: set SERF_BIND to another one",
    ),
    "root without rights": (
        ("--cap-drop=ALL",),
        HTTPD,
        100,
        "init: root lacks capabilities: add CHOWN, KILL",
    ),
    "nowhere to write": (("--read-only",), HTTPD, 100, "init: /run/service cannot be made: use --tmpfs /run"),
    "another word": (("--env=APP_RESTART=no",), HTTPD, 100, "init: APP_RESTART='no': allowed is yes, or nothing"),
    "no such program": ((), ("/no-such",), 127, "init: /no-such: No such file or directory"),
    "dies at once": ((), ("/busybox", "sh", "-c", "exit 3"), 3, "init: the application has ended with exit code 3"),
    "goes into the background": (
        (),
        ("/busybox", "httpd", "-p", "8080"),
        100,
        "init: the application went into the",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_ends_with_one_line(engine: Engine, cluster: Cluster, nodes: list[Container], case: str) -> None:
    """What cannot work ends the container with the right exit code, and the reason in its last lines."""
    options, command, code, line = WRONG[case]
    words = ["--env=SERVICES=", "--env=APP_PORT=8080", *options]
    node = cluster.start("wrong", build(engine, "static"), *words, command=command)
    nodes.append(node)
    assert node.wait_end() == code
    said = [each for each in node.log().splitlines() if each.startswith("init: ")]
    assert any(each.startswith(line) for each in said), node.log()
    assert len(said) <= 2


def test_an_image_without_a_command_is_told(cluster: Cluster, nodes: list[Container]) -> None:
    """ENTRYPOINT in a Dockerfile empties the base image's CMD: the line says so."""
    node = cluster.start("empty", f"{PREFIX}/node", *CONFINED)
    nodes.append(node)
    assert node.wait_end() == 100
    assert node.log().startswith("init: there is no application: name it in CMD.")


def test_an_application_that_ignores_its_signal_is_killed(cluster: Cluster, nodes: list[Container]) -> None:
    """After APP_STOP_S it is killed, in time before Docker kills the container: exit code 137 and a line."""
    command = ("/busybox", "sh", "-c", "trap '' TERM; while :; do httpd -f -p 8080 -h /www; done")
    node = start(cluster, "static", "deaf", "--env=APP_STOP_S=1", "--env=APP_GRACE_S=0", command=command)
    nodes.append(node)
    wait_for(lambda: "the application at port 8080 answers" in node.log(), node.log)
    node.stop("--time=60")
    assert "init: the application has not ended within 1 s of its signal: killing it" in node.log()
    assert node.state["ExitCode"] == 137


def test_an_application_is_started_again_where_that_is_wanted(
    cluster: Cluster, balancer: Balancer, nodes: list[Container]
) -> None:
    """With APP_RESTART a killed application is back, and `docker stop` ends with 0.

    One that keeps failing ends the container with its exit code.
    """
    node = start(cluster, "static", "again", "--env=APP_RESTART=yes")
    failing = start(cluster, "static", "failing", "--env=APP_RESTART=yes", command=("/busybox", "sh", "-c", "exit 3"))
    nodes += [node, failing]
    wait_for(lambda: balancer.view("again") == "UP", node.log, FAIL_S)
    pid = lambda: node.exec("/command/s6-svstat", "-o", "pid", "/run/service/app", user="0")  # noqa: E731
    before = pid()
    node.exec("/command/s6-svc", "-k", "/run/service/app", user="0")
    wait_for(lambda: pid() not in (before, "-1\n"), node.log)
    wait_for(lambda: balancer.view("again") == "UP", node.log, FAIL_S)
    assert "again" in balancer.members("alive")
    node.stop()
    assert node.state["ExitCode"] == 0
    assert failing.wait_end() == 3
    assert "init: app has failed permanently, last exit code 3: stopping the container" in failing.log()


def test_a_node_that_nothing_reaches_says_why(cluster: Cluster, balancer: Balancer, nodes: list[Container]) -> None:
    """An application on loopback only, and one that never answers, are told, and join nothing."""
    near = start(cluster, "static", "near", command=("/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"))
    silent = start(cluster, "static", "silent", command=("/busybox", "sleep", "600"))
    nodes += [near, silent]
    wait_for(lambda: "it listens on loopback only: have it listen at 0.0.0.0; this node joins" in near.log(), near.log)
    wait_for(lambda: "port 8080: Connection refused; this node joins when it answers" in silent.log(), silent.log)
    assert "near" not in balancer.serf("members")
    assert near.log().count("loopback") == 1


def test_a_node_that_cannot_join_says_why_once(cluster: Cluster, balancer: Balancer, nodes: list[Container]) -> None:
    """A name that leads nowhere, no network, and a name that another member has: each is told in a clear line."""
    options = ("--env=SERVICES=", "--env=APP_PORT=8080")
    lost = start(cluster, "musl", "lost", "--env=SERF_JOIN=lb1:7947 nowhere")
    image = build(cluster.engine, "static")
    far = cluster.engine(
        "run", "--detach", f"--label={cluster.engine.label}", "--network=none", *options, image, *HTTPD
    )
    alone = Container(cluster.engine, "alone", "none", far.split()[-1])
    cluster.containers.append(alone)
    first = start(cluster, "static", "taken", command=HTTPD)
    nodes += [lost, alone, first]
    wait_for(lambda: balancer.view("taken") == "UP", first.log, FAIL_S)
    second = start(cluster, "static", "taken", command=HTTPD)
    nodes.append(second)
    told = "serf: another member has the name taken: set SERF_NODE or the host name to a name of its own; trying again"
    wait_for(lambda: told in first.log() + second.log(), lambda: first.log() + second.log(), FAIL_S)
    wait_for(lambda: "join: lost is alone; looking for others" in lost.log(), lost.log, FAIL_S)
    said = lost.log().splitlines()
    assert [line for line in said if "nowhere" in line and line.startswith("join: ")] == [
        "join: nowhere has no address",
        "join: lost is alone; looking for others at lb1:7947 nowhere",
    ]
    assert sum(line.startswith("join: ") and "7947 is no member" in line for line in said) == 1
    assert "error joining" not in lost.log()
    assert [line for line in alone.log().splitlines() if not line.startswith("check: ")] == [
        'serf: level=WARNING msg="this container has no address in a network: Serf starts when it has one"'
    ]


@pytest.mark.parametrize("options", [(), NO_RIGHTS], ids=["plain", "read-only"])
def test_an_ordinary_user_needs_no_rights(
    cluster: Cluster, balancer: Balancer, nodes: list[Container], options: tuple[str, ...]
) -> None:
    """With --user and no capability a node joins, answers `ask`, and stops in order."""
    image = build(cluster.engine, "musl")
    node = cluster.start("plain", image, "--user=1000:1000", "--cap-drop=ALL", "--env=SERF_JOIN=lb1", *options)
    nodes.append(node)
    wait_for(lambda: balancer.view("plain") == "UP", node.log, FAIL_S)
    assert "plain" in node.exec("/command/ask", "members", user="1000:1000")
    node.exec("/command/health", user="1000:1000")
    node.stop()
    assert node.state["ExitCode"] == 7
    assert "leave" in node.log()
    wait_for(lambda: balancer.has_given_up("plain"), balancer.story)
