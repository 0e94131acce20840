"""A network of its own for a test: loopback alone, where packets between two addresses can be dropped. Needs root."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from itertools import permutations

from containers.engine import need

_BOTH = ("udp", "tcp")
CLONE_NEWNET = 0x40000000  # linux/sched.h

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def private_network() -> Iterator[None]:
    """Run a block in a network namespace that this thread, and what it starts, share; it ends with its last process."""
    need("iptables")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _must(_libc.unshare(CLONE_NEWNET), "create a network namespace, which needs root (sudo make test)")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            _must(_libc.setns(before, CLONE_NEWNET), "return to the previous network namespace")
    finally:
        os.close(before)


@contextlib.contextmanager
def cut(*places: Sequence[str]) -> Iterator[None]:
    """Drop what two Serf agents say directly to each other; others still carry their gossip.

    Args:
        places: The address and the port of each.
    """
    rules = [
        ["INPUT", "--source", one, "--destination", other, "--protocol", protocol, "--dport", port, "--jump", "DROP"]
        for (one, _), (other, port) in permutations(places, 2)
        for protocol in _BOTH
    ]
    with _ruled(rules):
        yield


@contextlib.contextmanager
def isolated(address: str, port: str, group: int) -> Iterator[None]:
    """Drop all that a Serf agent and others say to each other.

    Args:
        address: Where the agent listens.
        port: The port of the gossip, of all agents.
        group: The agent's group, which no other process has: what it sends over TCP comes from an address like any.
    """
    here = ["INPUT", "--destination", address, "--dport", port]
    there = ["OUTPUT", "--match", "owner", "--gid-owner", str(group), "--dport", port]
    rules = [[chain, "--protocol", each, *rest, "--jump", "DROP"] for chain, *rest in (here, there) for each in _BOTH]
    with _ruled(rules):
        yield


@contextlib.contextmanager
def _ruled(rules: Sequence[Sequence[str]]) -> Iterator[None]:
    try:
        for rule in rules:
            subprocess.run(["iptables", "--wait", "--append", *rule], check=True)
        yield
    finally:
        for rule in rules:
            subprocess.run(["iptables", "--wait", "--delete", *rule], check=True)


def _must(result: int, what: str) -> None:
    if result:
        raise AssertionError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")
