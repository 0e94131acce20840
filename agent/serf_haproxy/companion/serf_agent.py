"""One Serf agent for one container: a child process whose configuration is in memory only."""

import json
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.printing import printable
from serf_haproxy.serf.rpc import Connection, RpcAddress
from serf_haproxy.system.network import format_endpoint
from serf_haproxy.system.processes import Dependent

_KEY_BYTES = 32
_LOOPBACK = "127.0.0.1"
_RPC_S = 1.0  # joining takes Serf longer where nothing answers: it goes on when we do not wait any more
_SHOWN = 300
_ENVIRON = {"GODEBUG": "netdns=go"}  # Serf's handlers would have the environment, and there are none


class Cluster(NamedTuple):
    """What all nodes have in common.

    Attributes:
        bind: The address at which their Serf agents listen.
        advertised: The address under which other members reach them.
        join: Gossip addresses of the cluster, each with its port.
        profile: Serf's profile of timing.
        keys: The gossip's keys, the first one is used; none for gossip without encryption.
        user: `UID:GID` of the user of the Serf agents; "" for ours.
        path: Where programs are searched.
    """

    bind: str
    advertised: str
    join: tuple[str, ...]
    profile: str
    keys: tuple[str, ...]
    user: str
    path: str


class SerfAgent:
    """A running Serf agent.

    Args:
        node: The node's name.
        port: The port of its gossip.
        rpc_port: The port of its RPC, on loopback.
        tags: Its tags.
        cluster: What all nodes have in common.

    Raises:
        SystemFault: It cannot be started.
    """

    def __init__(self, node: str, port: int, rpc_port: int, tags: Mapping[str, str], cluster: Cluster) -> None:
        self.port, self._rpc_port = port, rpc_port
        self.last_line = ""
        # Files in memory: they end with their users, and no secret is on a disk, a command line or in an environment.
        self._files = [os.memfd_create(name) for name in ("agent", "keyring", "rpc-auth")]
        config, keyring, rpc_auth = self._files
        key = secrets.token_urlsafe(_KEY_BYTES)
        self._options = {
            "node_name": node,
            "bind": format_endpoint(cluster.bind, port),
            "advertise": format_endpoint(cluster.advertised, port),
            "rpc_addr": format_endpoint(_LOOPBACK, rpc_port),
            "rpc_auth": key,
            "retry_join": list(cluster.join),
            "retry_interval": "1s",
            "leave_on_terminate": True,
            "profile": cluster.profile,
            "log_level": "warn",
        }
        if cluster.keys:
            _write(keyring, json.dumps(list(cluster.keys)))
            self._options["keyring_file"] = f"/proc/self/fd/{keyring}"
        _write(rpc_auth, key)
        self._write_tags(tags)
        argv = ["serf", "agent", f"-config-file=/proc/self/fd/{config}"]
        try:
            environ = {"PATH": cluster.path, **_ENVIRON}
            self._process = Dependent(argv, cluster.user, (config, keyring), environ)
        except BaseException:
            self._close_files()
            raise

    def fileno(self) -> int:
        """Return the descriptor that turns readable when it prints something, or has ended."""
        return self._process.fileno()

    def change_tags(self, tags: Mapping[str, str]) -> None:
        """Have it tell other tags from now on: it reads its configuration again."""
        self._write_tags(tags)
        self._process.send(signal.SIGHUP)

    def leave(self) -> None:
        """Have it leave the cluster gracefully and end, which takes it some seconds."""
        self._process.send(signal.SIGTERM)

    def read_status(self) -> int | None:
        """Keep the last line that it has printed; return its exit status, None while it runs."""
        status = self._process.read_status()
        while data := self._process.read_output():
            lines = [line.strip() for line in data.decode("utf-8", "backslashreplace").split("\n") if line.strip()]
            if lines:
                self.last_line = printable(lines[-1], _SHOWN)
        return status

    def join(self, others: Sequence[str], own: frozenset[str]) -> bool:
        """Have it join the cluster if it sees no living member but our own nodes; return whether it did.

        Args:
            others: Gossip addresses, one of which is enough.
            own: The names of our nodes.

        Raises:
            SerfFault: It gives no answer, or none of the addresses does.
        """
        where = RpcAddress(_LOOPBACK, self._rpc_port, f"/proc/self/fd/{self._files[2]}", _RPC_S)
        connection = Connection(where)
        try:
            members = connection.read_roster().members
            if any(status == ALIVE and name not in own for name, (status, _) in members.items()):
                return False
            connection.join(others)
            return True
        finally:
            connection.close()

    def close(self) -> None:
        """Kill it if it still runs, and forget it; a second call does nothing."""
        self._process.close()
        self._close_files()

    def _write_tags(self, tags: Mapping[str, str]) -> None:
        _write(self._files[0], json.dumps({**self._options, "tags": dict(tags)}))

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.pop())


def _write(descriptor: int, text: str) -> None:
    data = text.encode("ascii")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
