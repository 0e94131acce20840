"""Faults of containers: killed and frozen processes, and networks cut in the containers' own namespaces."""

import contextlib
from collections.abc import Iterator, Sequence

from containers.cluster import Container
from containers.engine import PREFIX, ROOT, Engine
from integration.proxy import wait_for

EVERYTHING = ("",)  # matches every packet
GOSSIP = ("meta l4proto { tcp, udp } th dport 7946", "meta l4proto { tcp, udp } th sport 7946")


def kill(container: Container, service: str) -> None:
    """Send SIGKILL to a supervised process and wait until its successor is ready."""
    before = container.pid(service)
    container.exec("s6-svc", "-k", f"/run/service/{service}")
    wait_for(lambda: container.pid(service) not in (before, -1), f"{service} is back")
    if "notification-fd" in container.exec("ls", f"/run/service/{service}"):
        container.exec("s6-svwait", "-U", "-t", "15000", f"/run/service/{service}")


def list_zombies(container: Container) -> list[str]:
    """Return the names of zombie processes: ended, but not reaped by their parent."""
    script = "grep -h -B 2 '^State:.Z' /proc/[0-9]*/status | sed -n 's/^Name:.//p'"
    return container.exec("sh", "-c", script, is_checked=False).splitlines()


@contextlib.contextmanager
def frozen(container: Container, pid: int) -> Iterator[None]:
    """Stop a process, by its id inside the container, with SIGSTOP for the duration of a block."""
    container.exec("sh", "-c", f"kill -STOP {pid}")
    try:
        wait_for(lambda: "T (stopped)" in container.exec("cat", f"/proc/{pid}/status"), f"process {pid} is stopped")
        yield
    finally:
        container.exec("sh", "-c", f"kill -CONT {pid}")


def worker_pid(container: Container) -> int:
    """Return the process id, inside the container, of HAProxy's worker, when no older worker is left."""
    master = container.pid("haproxy")

    def workers() -> list[str]:
        return container.exec("cat", f"/proc/{master}/task/{master}/children").split()

    wait_for(lambda: len(workers()) == 1, "HAProxy has one worker")
    return int(workers()[0])


def build_netfilter(engine: Engine) -> None:
    """Build the image of the helper containers that `wall` starts."""
    here = ROOT / "tests" / "containers" / "netfilter"
    engine.build("netfilter", here / "Dockerfile", here)


def beyond(containers: Sequence[Container]) -> tuple[str, ...]:
    """Return conditions that match every packet except those between two of these containers."""
    addresses = ", ".join(container.address for container in containers)
    return f"ip saddr != {{ {addresses} }}", f"ip daddr != {{ {addresses} }}"


@contextlib.contextmanager
def wall(containers: Sequence[Container], conditions: Sequence[str]) -> Iterator[None]:
    """Drop the containers' packets that match one of the nft conditions, in both directions, during a block.

    They are dropped at the network interface, like packets lost on a cable. If they were dropped earlier, the sender
    would get an error, and Serf does not suspect a node after a failed send.
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
    """Run a container that can set rules in another container's network namespace; yield its id."""
    options = [f"--label={container.engine.label}", "--cap-drop=ALL", "--cap-add=NET_ADMIN"]
    where = f"--network=container:{container.id}"
    helper = container.engine("run", "--detach", *options, where, f"{PREFIX}/netfilter").split()[-1]
    try:
        yield helper
    finally:
        container.engine("rm", "--force", helper)
