"""The content of the images, compared with docs/reference/image-security.md."""

import re

import pytest

from containers.cluster import CONFINED, Balancer, Cluster, Container
from containers.engine import PREFIX, ROOT, Engine
from integration.proxy import wait_for

SECURITY = (ROOT / "docs" / "reference" / "image-security.md").read_text()
EXPLORE = ("--rm", "--network=none", "--entrypoint=sh")
PASSING = {"sh", "cat", "stat", "grep", "cut", "getent", "tr", "sleep", "hostname", "runc:[2:INIT]", "health"}
OVERFLOW_UID = 65534
UNWANTED = ("gcc", "cc", "make", "pip", "pip3", "curl", "wget", "ssh", "git", "nc", "socat", "sudo")

CAPABLE_FILES = """
import os
open('/tmp/capable', 'w')
os.setxattr('/tmp/capable', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))
for folder, folders, files in os.walk('/'):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ('/proc', '/sys', '/dev')]
    for path in (os.path.join(folder, name) for name in files):
        if 'security.capability' in os.listxattr(path, follow_symlinks=False):
            print(path)
"""
# Without temporary directories, the engine's, and s6's event directories, which all users can write.
WRITABLE = (
    "find / \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /run/lock"
    " -o -path /command/run"
    " -o -path '/run/service/*/event' \\) -prune -o \\( -type d -o -type f \\) -writable -print 2>/dev/null"
)


def table(title: str) -> list[list[str]]:
    """Return the table below a title of that page as rows of cells, without heading and backquotes."""
    section = SECURITY.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]


@pytest.fixture(scope="module")
def balancer(cluster: Cluster) -> Balancer:
    """Return a balancer with all services: SERF_JOIN also starts the service `join`."""
    return cluster.balancer(SERF_JOIN="web1")


@pytest.fixture(scope="module")
def web(cluster: Cluster, balancer: Balancer) -> Container:
    """Return a web application behind the balancer."""
    web = cluster.webapp("web1")
    balancer.wait_servers("web1")
    return web


@pytest.fixture(scope="module", params=["balancer", "webapp"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return the name of an image."""
    return str(request.param)


@pytest.fixture
def container(kind: str, balancer: Balancer, web: Container) -> Container:
    """Return a container that runs that image."""
    return balancer if kind == "balancer" else web


def look(engine: Engine, kind: str, script: str) -> list[str]:
    """Run a shell script in a new container of an image, as root; return its output lines."""
    return engine("run", *EXPLORE, f"{PREFIX}/{kind}", "-c", script).splitlines()


def test_no_file_grants_privileges(engine: Engine, kind: str) -> None:
    """No file has setuid, setgid or capabilities, except the test's own file that shows that they are found."""
    assert look(engine, kind, "find / -xdev -type f -perm /6000") == []
    assert look(engine, kind, f'python3 -c "{CAPABLE_FILES}"') == ["/tmp/capable"]


def test_nothing_is_left_of_the_build(engine: Engine, kind: str) -> None:
    """An image has no compiler, no pip, no package lists, no caches and no network tools."""
    assert look(engine, kind, f"for tool in {' '.join(UNWANTED)}; do command -v $tool; done; true") == []
    found = look(engine, kind, "ls -A /var/lib/apt/lists /var/cache/apt /var/log /root/.cache 2>/dev/null | grep -v :")
    assert [line for line in found if line] == []


def test_packages_match_the_documentation(engine: Engine, kind: str) -> None:
    """Beyond the base image, exactly the packages of the table are installed."""
    base = set(engine("run", *EXPLORE, engine.base, "-c", "dpkg-query -Wf '${Package}\\n'").split())
    added = set(look(engine, kind, "dpkg-query -Wf '${Package}\\n'")) - base
    rows = {row[0]: row for row in table("Packages")}
    assert set(rows[kind][1].split(", ")) == added


def test_processes_match_the_documentation(container: Container, kind: str) -> None:
    """Each lasting process has the user and groups of the table, and only root's processes have capabilities."""
    stated = {(row[1], row[2], *sorted(row[3].split(", "))) for row in table("Processes") if kind in row[0]}
    script = (
        "cd /proc; for p in [0-9]*; do [ -r $p/comm ] || continue; "
        'echo "$(cat $p/comm) $(stat -c %U $p) $(grep CapEff $p/status | cut -f2) '
        '$(for g in $(grep ^Groups $p/status); do getent group $g; done | cut -d: -f1 | tr "\\n" ,)"; done'
    )

    def look() -> set[tuple[str, ...]]:
        rows = [line.split(" ") for line in container.exec("sh", "-c", script).splitlines()]
        # One that ended meanwhile has no capabilities to read.
        found = [row for row in rows if len(row) == 4 and row[2] and row[0] not in PASSING]
        assert all((int(capabilities, 16) != 0) == (user == "root") for _, user, capabilities, _ in found)
        return {(name, user, *sorted(groups.strip(",").split(","))) for name, user, _, groups in found}

    # The processes of handlers and checks last only for a moment.
    wait_for(lambda: look() == stated, f"{look() ^ stated} is empty")


def test_ports_match_the_documentation(container: Container, kind: str) -> None:
    """The listening addresses and ports are exactly those of the table."""
    stated = {(row[1], row[2]) for row in table("Ports") if kind in row[0]}
    seen = set()
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in container.exec("cat", f"/proc/net/{protocol}").splitlines()[1:]:
            words = line.split()
            address, port = words[1].split(":")
            is_embedded_dns = address == "0B00007F"  # Docker's DNS server, 127.0.0.11
            is_open = words[3] == ("0A" if protocol.startswith("tcp") else "07")
            if is_open and not is_embedded_dns:
                where = "loopback" if address == "0100007F" else "all"
                seen.add((f"{int(port, 16)}/{protocol[:3]}", where))
    assert seen == stated


def test_users_match_the_documentation(container: Container, kind: str) -> None:
    """Beside Debian's users there are exactly those of the table; no user has a password, and these have no shell."""
    stated = {(row[1], row[2], row[3]) for row in table("Users") if kind in row[0]}
    passwd = [line.split(":") for line in container.exec("getent", "passwd").splitlines()]
    ours = [words for words in passwd if 900 <= int(words[2]) < OVERFLOW_UID]
    groups = {words[0]: " ".join(sorted(container.exec("id", "-Gn", words[0]).split())) for words in ours}
    assert {(words[0], words[2], groups[words[0]]) for words in ours} == stated
    assert {words[6] for words in ours} == {"/usr/sbin/nologin"}
    secrets = [line.split(":")[1] for line in container.exec("cat", "/etc/shadow").splitlines()]
    assert {secret[:1] for secret in secrets} <= {"*", "!"}


def test_writable_paths_match_the_documentation(cluster: Cluster, container: Container, kind: str) -> None:
    """Each user of the table can write exactly to its paths of the table, also without a read-only root."""
    stated: dict[str, set[str]] = {row[1]: set() for row in table("Users") if kind in row[0]}
    for images, path, users, _ in table("Writable paths"):
        for user in users.split(", ") if kind in images else ():
            stated[user].add(path)
    loose = [option for option in CONFINED if not option.startswith(("--read-only", "--tmpfs"))]
    writable = cluster.start(f"writable-{kind}", f"{PREFIX}/{kind}", *loose, "--env=SERF_JOIN=web1")
    # By then its processes have created their files.
    wait_for(lambda: " alive " in writable.serf("members", is_checked=False), "Serf answers")
    for here in (container, writable):
        for user, paths in stated.items():
            found = here.exec("sh", "-c", WRITABLE, user=user, is_checked=False).splitlines()
            assert {path for path in found if not any(path.startswith(f"{place}/") for place in paths)} == paths, user


def test_the_capabilities_are_documented_and_needed(cluster: Cluster) -> None:
    """The tests grant the capabilities of the table; without one of them a balancer fails or cannot be stopped."""
    stated = {f"--cap-add={row[0]}" for row in table("Capabilities")}
    assert {option for option in CONFINED if "cap-add" in option} == stated
    complaints = []
    for missing in sorted(stated):
        options = [option for option in CONFINED if option != missing]
        broken = cluster.start("broken", f"{PREFIX}/balancer", *options)
        try:
            if missing == "--cap-add=KILL":
                wait_for(lambda broken=broken: "Serf answers" in broken.log(), "its services run")
                broken.stop("--time=3")
                complaints.append(broken.state["ExitCode"] == 137)
            else:
                wait_for(lambda broken=broken: "peration not permitted" in broken.log(), f"a complaint: {missing}")
        finally:
            cluster.remove(broken)
    assert complaints == [True]


def test_the_man_page_is_where_man_looks(balancer: Balancer) -> None:
    """`man` looks into share/man beside each directory of PATH; the page has every command."""
    assert "/opt/serf-haproxy/bin" in balancer.exec("sh", "-c", "echo $PATH").split(":")
    page = balancer.exec("cat", "/opt/serf-haproxy/share/man/man1/serf-haproxy.1")
    assert page.startswith(".TH SERF-HAPROXY 1 ")
    for command in ("run", "status", "explain", "maint set", "doctor"):
        assert f".SS serf\\-haproxy {command}\n" in page


def test_the_former_name_of_the_daemons_user_works(balancer: Balancer, web: Container) -> None:
    """`docker exec -u agent` runs `serf-haproxy status` as the user serf-haproxy."""
    assert balancer.exec("id", user="agent") == balancer.exec("id", user="serf-haproxy")
    assert web.name in balancer.exec("serf-haproxy", "status", user="agent", is_checked=False)


def test_the_daemon_can_signal_only_haproxy(balancer: Balancer) -> None:
    """The daemon's user may query and signal HAProxy's service and no other."""

    def rule(*argv: str) -> str:
        return balancer.exec(*argv, user="serf-haproxy", is_checked=False)

    wait_for(lambda: balancer.views() is not None, "HAProxy runs, so its service has granted the rights")
    assert rule("s6-svc", "-2", "/run/service/haproxy") == ""
    assert re.match("up ", rule("s6-svstat", "/run/service/haproxy"))
    assert "Permission denied" in rule("s6-svc", "-2", "/run/service/serf")
    assert "Permission denied" in rule("s6-svscanctl", "-h", "/run/service")
    assert "not permitted" in rule("sh", "-c", "kill -0 1")
