"""Keys of the gossip and of the RPC, and the options that pass them to containers."""

import base64
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

KEY = base64.b64encode(bytes(range(32))).decode()
RPC_KEY = "a-secret_of.the+RPC"


@contextlib.contextmanager
def secret_options() -> Iterator[list[str]]:
    """Yield options that mount both secrets, readable only for root, and set the variables that name them."""
    with tempfile.TemporaryDirectory(prefix="secrets-") as directory:
        options = []
        for variable, secret in (("SERF_ENCRYPT_KEY_FILE", KEY), ("SERF_RPC_AUTH_FILE", RPC_KEY)):
            path = Path(directory, variable)
            path.write_text(secret + "\n")
            path.chmod(0o600)
            options += [f"--volume={path}:/run/secrets/{variable}:ro", f"--env={variable}=/run/secrets/{variable}"]
        yield options
