"""The secrets that sign orders."""

from serf_haproxy.control.rules import read_secret_file
from serf_haproxy.policy.proof import Secret
from serf_haproxy.settings import Settings, variable


def find_secrets(settings: Settings) -> tuple[Secret, ...]:
    """Return the secrets that sign orders, the first for signing: those of a file of their own, else of the proofs.

    Raises:
        SystemFault: The file is missing or wrong.
    """
    key = "orders_secret_file" if settings.orders_secret_file else "proof_secret_file"
    return read_secret_file(getattr(settings, key), variable(key))
