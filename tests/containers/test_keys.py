"""Replacing the gossip's key: docs/how-to/rotate-secrets.md, step by step, under load.

LONG_KEYS=1 takes all steps in both orders.
"""

import base64
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.cluster import FAIL_S, Balancer, Cluster, Container
from containers.conftest import MakeCluster
from integration.load import Load, run_load
from integration.proxy import wait_for

OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
STEPS = ((OLD, NEW), (NEW, OLD), (NEW,))
IS_LONG = bool(os.environ.get("LONG_KEYS"))
WHERE = "/run/keys/gossip"


class Keyring:
    """A cluster of lb1, web1 and web2, each with a file of keys that a test can replace."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._directory = directory
        self.balancer: Balancer = cluster.balancer("lb1", self._mount("lb1"), SERF_ENCRYPT_KEY_FILE=WHERE)
        self.nodes: dict[str, Container] = {"lb1": self.balancer}
        for name in ("web1", "web2"):
            self.nodes[name] = cluster.webapp(name, self._mount(name), SERF_ENCRYPT_KEY_FILE=WHERE)
        self.balancer.wait_servers("web1", "web2")

    def replace(self, name: str, keys: tuple[str, ...]) -> None:
        """Replace a node's file, restart its Serf agent, and wait until all nodes know each other again."""
        node = self.nodes[name]
        (self._directory / name / "gossip").write_text("".join(f"{key}\n" for key in keys))
        node.exec("s6-svc", "-wR", "-T", "15000", "-r", "/run/service/serf")
        for each in self.nodes.values():
            wait_for(
                lambda each=each: each.members("alive") == set(self.nodes),
                lambda each=each, name=name: (
                    f"{each.name} knows all after {name}: {each.serf('members')}\n{each.log()}"
                ),
                FAIL_S,
            )
        self.balancer.wait_servers("web1", "web2", timeout_s=FAIL_S)

    def count_keys(self) -> list[str]:
        """Return how many nodes have each key, as `ask keys -list` shows it."""
        return self.balancer.serf("keys", "-list").splitlines()

    def _mount(self, name: str) -> str:
        (self._directory / name).mkdir()
        (self._directory / name / "gossip").write_text(f"{OLD}\n")
        return f"--volume={self._directory / name}:/run/keys:ro"


@pytest.fixture
def keyring(make_cluster: MakeCluster) -> Iterator[Keyring]:
    """Yield such a cluster. The balancer joins no one."""
    with tempfile.TemporaryDirectory(prefix="keys-") as directory, make_cluster() as cluster:
        yield Keyring(cluster, Path(directory))


@pytest.mark.parametrize(
    ("order", "steps"),
    [(("web1", "web2", "lb1"), STEPS), (("lb1", "web2", "web1"), STEPS if IS_LONG else STEPS[:2])],
    ids=["balancer last", "balancer first"],
)
def test_a_replaced_gossip_key_costs_no_request(
    keyring: Keyring, order: tuple[str, ...], steps: tuple[tuple[str, ...], ...]
) -> None:
    """While the key is replaced on one node after the other, balancer last or first, every request gets 200."""
    assert keyring.count_keys() == ["key 1: on 3 of 3 nodes"]
    with run_load(Load(keyring.balancer.address, 80, think_s=0.05), 5) as seen:
        wait_for(lambda: seen.ok_count > 10, "the load runs")
        for keys in steps:
            for name in order:
                keyring.replace(name, keys)
            assert keyring.count_keys() == [f"key {at} on 3 of 3 nodes" for at in ("1:", "2:")[: len(keys)]]
    assert seen.failures == []
    assert seen.ok_count > 100
    for node in keyring.nodes.values():
        exposed = node.log() + node.spy("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
        assert OLD not in exposed
        assert NEW not in exposed


def test_a_key_file_with_an_invalid_line_ends_the_container(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """Two keys in one line, or an empty line between keys, end the container with 100; no key is printed."""
    with make_cluster() as cluster:
        for number, text in enumerate((f"{OLD} {NEW}\n", f"{OLD}\n\n{NEW}\n"), 1):
            path = tmp_path / f"keys{number}"
            path.write_text(text)
            path.chmod(0o644)
            options = f"--volume={path}:/run/secrets/key:ro"
            web = cluster.webapp(f"web{number}", options, SERF_ENCRYPT_KEY_FILE="/run/secrets/key")
            assert web.wait_end() == 100
            assert "/run/secrets/key: must be one word" in web.log()
            assert NEW not in web.log()
