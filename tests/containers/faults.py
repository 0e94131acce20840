"""What tests do to containers: kill and freeze processes, and cut networks inside the containers' own namespaces."""

import contextlib
from collections.abc import Iterator, Sequence

from containers.cluster import Container
from containers.engine import PREFIX, ROOT, Engine
from integration.proxy import wait_for

EVERYTHING = ("",)  # a condition that every packet meets
GOSSIP = ("meta l4proto { tcp, udp } th dport 7946", "meta l4proto { tcp, udp } th sport 7946")


def kill(container: Container, service: str) -> None:
    """Send SIGKILL to a supervised process and wait until another one is ready in its place."""
    before = container.pid(service)
    container.exec("s6-svc", "-k", f"/run/service/{service}")
    wait_for(lambda: container.pid(service) not in (before, -1), f"{service} is back")
    if "notification-fd" in container.exec("ls", f"/run/service/{service}"):
        container.exec("s6-svwait", "-U", "-t", "15000", f"/run/service/{service}")


def list_zombies(container: Container) -> list[str]:
    """Return the names of processes that have ended and that nobody has asked for their exit code."""
    script = "grep -h -B 2 '^State:.Z' /proc/[0-9]*/status | sed -n 's/^Name:.//p'"
    return container.exec("sh", "-c", script, is_checked=False).splitlines()


@contextlib.contextmanager
def frozen(container: Container, pid: int) -> Iterator[None]:
    """Freeze a process, by its id inside, with SIGSTOP for the length of a block; SIGCONT follows whatever happens."""
    container.exec("sh", "-c", f"kill -STOP {pid}")
    try:
        wait_for(lambda: "T (stopped)" in container.exec("cat", f"/proc/{pid}/status"), f"process {pid} is stopped")
        yield
    finally:
        container.exec("sh", "-c", f"kill -CONT {pid}")


def worker_pid(container: Container) -> int:
    """Return the process id, inside, of HAProxy's only worker, once an older one has gone."""
    master = container.pid("haproxy")

    def workers() -> list[str]:
        return container.exec("cat", f"/proc/{master}/task/{master}/children").split()

    wait_for(lambda: len(workers()) == 1, "HAProxy has one worker")
    return int(workers()[0])


def build_netfilter(engine: Engine) -> None:
    """Make the image of the container that `wall` starts beside another."""
    here = ROOT / "tests" / "containers" / "netfilter"
    engine.build("netfilter", here / "Dockerfile", here)


def beyond(containers: Sequence[Container]) -> tuple[str, ...]:
    """Return the conditions that a packet meets unless it goes from one of these containers to another."""
    addresses = ", ".join(container.address for container in containers)
    return f"ip saddr != {{ {addresses} }}", f"ip daddr != {{ {addresses} }}"


@contextlib.contextmanager
def wall(containers: Sequence[Container], conditions: Sequence[str]) -> Iterator[None]:
    """Drop packets of containers for the length of a block: those that meet one of nft's conditions, either way.

    They are dropped at the network interface itself, as a cable would lose them: dropped any earlier, a sender is told,
    and Serf does not suspect a node whose packets it could not even send.
    """
    words = ["add table netdev wall"]
    for chain in ("ingress", "egress"):
        words.append(f"add chain netdev wall {chain} {{ type filter hook {chain} device eth0 priority 0; }}")
        words += [f"add rule netdev wall {chain} {condition} drop" for condition in conditions]
    with contextlib.ExitStack() as stack:
        helpers = [stack.enter_context(_beside(container)) for container in containers]
        for container, helper in zip(containers, helpers, strict=True):
            container.engine("exec", helper, "nft", "; ".join(words))
            stack.callback(container.engine, "exec", helper, "nft", "delete table netdev wall")
        yield


@contextlib.contextmanager
def _beside(container: Container) -> Iterator[str]:
    """Start a container that may set rules in another one's network namespace; yield its id."""
    options = [f"--label={container.engine.label}", "--cap-drop=ALL", "--cap-add=NET_ADMIN"]
    where = f"--network=container:{container.id}"
    helper = container.engine("run", "--detach", *options, where, f"{PREFIX}/netfilter").split()[-1]
    try:
        yield helper
    finally:
        container.engine("rm", "--force", helper)
