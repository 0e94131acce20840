"""The Serf agent of a node: its configuration, with a key for its RPC, and the connection for commands.

The RPC lets its users read the gossip's key and end the node, and loopback keeps no local user out. So every start
makes a new key. It is only in files of this user: the command `serf` would take it from its command line or its
environment, where other programs can read it.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from serf_haproxy.serf.rpc import Connection, RpcAddress
from serf_haproxy.system.files import write_durably

_KEY_BYTES = 32
_COMMAND_S = 10.0


def auth_path(work_dir: str) -> str:
    """Return the path of the file with the key of the RPC."""
    return os.path.join(work_dir, "rpc-auth")


def write_config(work_dir: str, options: Mapping[str, Any]) -> str:
    """Write the Serf agent's configuration with a new key for its RPC, and the key alone; return the former's path."""
    key = secrets.token_urlsafe(_KEY_BYTES)
    config_path = os.path.join(work_dir, "agent.json")
    write_durably(auth_path(work_dir), f"{key}\n", 0o600)
    write_durably(config_path, json.dumps({"rpc_auth": key, **options}) + "\n", 0o600)
    return config_path


@contextlib.contextmanager
def connect(work_dir: str, host: str, port: int) -> Iterator[Connection]:
    """Connect to the RPC of the Serf agent whose files are in a directory, for the length of the block.

    Raises:
        SerfFault: It cannot be reached or refuses the key; an exchange in the block failed.
    """
    connection = Connection(RpcAddress(host, port, auth_path(work_dir), _COMMAND_S))
    try:
        yield connection
    finally:
        connection.close()
