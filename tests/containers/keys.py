"""Keys of the gossip and of the RPC, as containers get them."""

import base64
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

KEY = base64.b64encode(bytes(range(32))).decode()
RPC_KEY = "a-secret_of.the+RPC"


@contextlib.contextmanager
def secret_options() -> Iterator[list[str]]:
    """Yield options that mount our two secrets, which only root can read, and name them."""
    with tempfile.TemporaryDirectory(prefix="secrets-") as directory:
        options = []
        for variable, secret in (("SERF_ENCRYPT_KEY_FILE", KEY), ("SERF_RPC_AUTH_FILE", RPC_KEY)):
            path = Path(directory, variable)
            path.write_text(secret + "\n")
            path.chmod(0o600)
            options += [f"--volume={path}:/run/secrets/{variable}:ro", f"--env={variable}=/run/secrets/{variable}"]
        yield options
