"""Who may ask: everyone who reaches a Unix socket or loopback, or who knows the token where there is one."""

import base64
import ipaddress

from serf_haproxy.control.rules import read_secret_file
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.proof import Secret
from serf_haproxy.settings import Settings, variable
from serf_haproxy.web.request import Request, Response, refuse


class Access:
    """Decides about requests.

    Args:
        settings: The settings.

    Raises:
        SystemFault: The file with the token is missing or wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.web_token_file
        self._is_local = settings.is_web_local
        self._read()

    def refuse(self, request: Request) -> Response | None:
        """Return why a request is refused, None where it is not.

        A page of another site can have a browser on this machine ask at loopback, or at a port that SSH forwards to a
        Unix socket, by a name of its own that leads there. Such a request names that host.
        """
        if self._is_local and not _is_local(request.headers.get("host", "")):
            return refuse(403, "ask for the host localhost, or for an IP address")
        if not self._path:
            return None
        try:
            secrets = self._read()
        except SystemFault:
            return refuse(503, f"the token cannot be read; see {variable('web_token_file')}")
        token = _find_token(request.headers.get("authorization", ""))
        if token is not None and Secret(token) in secrets:
            return None
        remedy = "send the token as `Authorization: Bearer TOKEN`, or as the password of any user"
        return refuse(401, remedy, WWW_Authenticate='Basic realm="serf-haproxy", charset="UTF-8"')

    def _read(self) -> tuple[Secret, ...]:
        return read_secret_file(self._path, variable("web_token_file"))


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _find_token(authorization: str) -> bytes | None:
    """Return the token that a request shows: a bearer's, or the password of any user (RFC 6750, RFC 7617)."""
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return text.strip().encode("latin-1")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(text.strip(), validate=True).partition(b":")[2]
    except ValueError:  # no base64, or no ASCII
        return None
