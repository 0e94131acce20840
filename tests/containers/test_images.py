"""What is in the images, held against docs/reference/image-security.md."""

import re

import pytest

from containers.cluster import CONFINED, Balancer, Cluster, Container
from containers.engine import PREFIX, ROOT, Engine
from integration.proxy import wait_for

SECURITY = (ROOT / "docs" / "reference" / "image-security.md").read_text()
EXPLORE = ("--rm", "--network=none", "--entrypoint=sh")
PASSING = {"sh", "cat", "stat", "grep", "cut", "getent", "tr", "sleep", "hostname", "runc:[2:INIT]", "health"}
NOBODY = 65534
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
# Without what is temporary or the engine's, and without s6's event directories, which are open to everybody.
WRITABLE = (
    "find / \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /run/lock"
    " -o -path '/run/service/*/event' \\) -prune -o \\( -type d -o -type f \\) -writable -print 2>/dev/null"
)


def table(title: str) -> list[list[str]]:
    """Return the rows, without the first, of the table below a title of that page; code marks are gone."""
    section = SECURITY.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]


@pytest.fixture(scope="module")
def balancer(cluster: Cluster) -> Balancer:
    """Return a balancer with all its services: it has somebody to join."""
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
    """Run a shell script in a fresh container of an image, with all rights; return its lines."""
    return engine("run", *EXPLORE, f"{PREFIX}/{kind}", "-c", script).splitlines()


def test_no_file_gives_rights_away(engine: Engine, kind: str) -> None:
    """There is no setuid or setgid file, and none with capabilities but the one that shows that we see them."""
    assert look(engine, kind, "find / -xdev -type f -perm /6000") == []
    assert look(engine, kind, f'python3 -c "{CAPABLE_FILES}"') == ["/tmp/capable"]


def test_nothing_is_left_of_the_building(engine: Engine, kind: str) -> None:
    """No compiler, no pip, no package lists, no caches, no network tools."""
    assert look(engine, kind, f"for tool in {' '.join(UNWANTED)}; do command -v $tool; done; true") == []
    found = look(engine, kind, "ls -A /var/lib/apt/lists /var/cache/apt /var/log /root/.cache 2>/dev/null | grep -v :")
    assert [line for line in found if line] == []


def test_packages_are_those_that_are_stated(engine: Engine, kind: str) -> None:
    """Beyond the base there are just the packages of the table, and what they depend on: no more than it says."""
    base = set(engine("run", *EXPLORE, engine.base, "-c", "dpkg-query -Wf '${Package}\\n'").split())
    added = set(look(engine, kind, "dpkg-query -Wf '${Package}\\n'")) - base
    rows = {row[0]: row for row in table("Packages")}
    assert set(rows[kind][1].split(", ")) == added


def test_processes_are_those_that_are_stated(container: Container, kind: str) -> None:
    """Every process that stays has the user and groups of the table, and only root's have capabilities."""
    stated = {(row[1], row[2], *sorted(row[3].split(", "))) for row in table("Processes") if kind in row[0]}
    script = (
        "cd /proc; for p in [0-9]*; do [ -r $p/comm ] || continue; "
        'echo "$(cat $p/comm) $(stat -c %U $p) $(grep CapEff $p/status | cut -f2) '
        '$(for g in $(grep ^Groups $p/status); do getent group $g; done | cut -d: -f1 | tr "\\n" ,)"; done'
    )

    def look() -> set[tuple[str, ...]]:
        rows = [line.split(" ") for line in container.exec("sh", "-c", script).splitlines()]
        found = [row for row in rows if len(row) == 4 and row[0] not in PASSING]
        assert all((int(capabilities, 16) != 0) == (user == "root") for _, user, capabilities, _ in found)
        return {(name, user, *sorted(groups.strip(",").split(","))) for name, user, _, groups in found}

    # What a handler or a check starts is there for a moment only.
    wait_for(lambda: look() == stated, f"{look() ^ stated} is no difference")


def test_ports_are_those_that_are_stated(container: Container, kind: str) -> None:
    """Nothing listens on another address or port than the table says."""
    stated = {(row[1], row[2]) for row in table("Ports") if kind in row[0]}
    seen = set()
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in container.exec("cat", f"/proc/net/{protocol}").splitlines()[1:]:
            words = line.split()
            address, port = words[1].split(":")
            is_embedded_dns = address == "0B00007F"  # Docker's own, 127.0.0.11
            is_open = words[3] == ("0A" if protocol.startswith("tcp") else "07")
            if is_open and not is_embedded_dns:
                where = "loopback" if address == "0100007F" else "all"
                seen.add((f"{int(port, 16)}/{protocol[:3]}", where))
    assert seen == stated


def test_users_are_those_that_are_stated(container: Container, kind: str) -> None:
    """Beside Debian's there are just the users of the table; nobody has a password, and none of these a shell."""
    stated = {(row[1], row[2], row[3]) for row in table("Users") if kind in row[0]}
    passwd = [line.split(":") for line in container.exec("getent", "passwd").splitlines()]
    ours = [words for words in passwd if 900 <= int(words[2]) < NOBODY]
    groups = {words[0]: " ".join(sorted(container.exec("id", "-Gn", words[0]).split())) for words in ours}
    assert {(words[0], words[2], groups[words[0]]) for words in ours} == stated
    assert {words[6] for words in ours} == {"/usr/sbin/nologin"}
    secrets = [line.split(":")[1] for line in container.exec("cat", "/etc/shadow").splitlines()]
    assert {secret[:1] for secret in secrets} <= {"*", "!"}


def test_writable_paths_are_those_that_are_stated(cluster: Cluster, container: Container, kind: str) -> None:
    """Each of our users can write to the places of the table and nowhere else, also where nothing is read-only."""
    stated: dict[str, set[str]] = {row[1]: set() for row in table("Users") if kind in row[0]}
    for images, path, users, _ in table("Writable paths"):
        for user in users.split(", ") if kind in images else ():
            stated[user].add(path)
    loose = [option for option in CONFINED if not option.startswith(("--read-only", "--tmpfs"))]
    writable = cluster.start(f"writable-{kind}", f"{PREFIX}/{kind}", *loose, "--env=SERF_JOIN=web1")
    # The same processes have then made their files.
    wait_for(lambda: writable.exec("/run/service/serf/data/ask", "members", is_checked=False), "Serf answers")
    for here in (container, writable):
        for user, paths in stated.items():
            found = here.exec("sh", "-c", WRITABLE, user=user, is_checked=False).splitlines()
            assert {path for path in found if not any(path.startswith(f"{place}/") for place in paths)} == paths, user


def test_the_capabilities_are_stated_and_needed(cluster: Cluster) -> None:
    """The tests grant what the table says; without any one of them a balancer complains, or cannot be stopped."""
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


def test_the_resident_can_signal_haproxy_alone(balancer: Balancer) -> None:
    """The resident's user may look at and signal HAProxy's service, and is refused everything else."""

    def rule(*argv: str) -> str:
        return balancer.exec(*argv, user="agent", is_checked=False)

    assert rule("s6-svc", "-2", "/run/service/haproxy") == ""
    assert re.match("up ", rule("s6-svstat", "/run/service/haproxy"))
    assert "Permission denied" in rule("s6-svc", "-2", "/run/service/serf")
    assert "Permission denied" in rule("s6-svscanctl", "-h", "/run/service")
    assert "not permitted" in rule("sh", "-c", "kill -0 1")
