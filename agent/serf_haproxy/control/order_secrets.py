"""The secrets that sign orders, and answers to queries of Serf."""

from serf_haproxy.control.rules import read_secret_file
from serf_haproxy.policy.proof import Secret
from serf_haproxy.settings import Settings, variable
from serf_haproxy.system.files import find_stamp


class OrderSecrets:
    """The secrets that sign orders, read again only when their file has changed.

    Args:
        settings: The settings: they name a file for orders, else that of the proofs counts.
    """

    def __init__(self, settings: Settings) -> None:
        key = "orders_secret_file" if settings.orders_secret_file else "proof_secret_file"
        self._path: str = getattr(settings, key)
        self._where = variable(key)
        self._stamp: tuple[int, ...] | None = None
        self._secrets: tuple[Secret, ...] = ()

    def read(self) -> tuple[Secret, ...]:
        """Return the secrets, the first for signing; none where no file is named.

        Raises:
            SystemFault: The file is missing or wrong.
        """
        if not self._path:
            return ()
        stamp = find_stamp(self._path)
        if stamp is None or stamp != self._stamp:
            self._secrets = read_secret_file(self._path, self._where)
            self._stamp = stamp
        return self._secrets
