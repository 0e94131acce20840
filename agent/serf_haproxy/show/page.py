"""What the doctor asks the web process: whether it answers."""

import socket
from collections.abc import Iterator

from serf_haproxy.settings import Settings, variable
from serf_haproxy.show.check import Check

_ANSWER_S = 0.9
_QUESTION = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_REMEDY = "look at the daemon's log; kill a web process that hangs, and the daemon starts another one"


def look_at_page(settings: Settings) -> Iterator[Check]:
    """Look whether the web process answers where one is wanted; it says itself whether the daemon makes passes."""
    if not (bind := settings.web_bind):
        return
    try:
        said = _ask(bind)
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        yield Check(False, f"the web process does not answer at {bind}: {why}", _REMEDY)
    else:
        is_http = said.startswith(b"HTTP/1.1 ")
        what = f"the web process answers at {bind}" if is_http else f"{bind} is the place of another program"
        yield Check(is_http, what, "" if is_http else f"change {variable('web_bind')}")


def _ask(bind: str) -> bytes:
    if bind.startswith("/"):
        link = socket.socket(socket.AF_UNIX)
        place: str | tuple[str, int] = bind
    else:
        host, _, port = bind.rpartition(":")
        host = host.strip("[]")
        link = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        place = (host if host not in ("", "*") else "127.0.0.1", int(port))
    with link:
        link.settimeout(_ANSWER_S)
        link.connect(place)
        link.sendall(_QUESTION)
        return link.recv(64)
