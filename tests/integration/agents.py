"""Real Serf agents on loopback."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator

from integration.proxy import free_port, wait_for


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def start_serf(
    name: str, rpc_host: str, rpc_port: int, *tags: str, options: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a Serf agent; return its process, which the caller ends, and its gossip address, host:port."""
    bind = f"{rpc_host}:{free_port(rpc_host)}"
    argv = ["serf", "agent", f"-node={name}", f"-bind={bind}", f"-rpc-addr={rpc_host}:{rpc_port}", *options]
    for tag in tags:
        argv += ["-tag", tag]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), bind


@contextlib.contextmanager
def run_serf(name: str, rpc_host: str, rpc_port: int, *tags: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a Serf agent for the duration of a block; yield its gossip address, host:port."""
    process, bind = start_serf(name, rpc_host, rpc_port, *tags, options=options)
    try:
        wait_for(lambda: _answers(rpc_host, rpc_port), f"the RPC of {name}")
        yield bind
    finally:
        process.kill()
        process.wait(10)
