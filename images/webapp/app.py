"""The demo web application: its answers name the instance, and it can delay them.

GET / answers, HEAD / and GET /health check the health, POST /delay sets the delay of GET /. GET /idle says for how long
no request has come from another machine. After POST /retire, which only this machine may send, health checks get 503:
balancers send no more requests, and the application may end. The count of session views is stored only in the cookie
`NODESESSID=<id>.<views>`, so it outlives the instance that counted.

With APP_PATH=/api it answers at /api and below too, as at / and below: a balancer's route may lead there.

Settings: APP_HOST (0.0.0.0), APP_PORT (3000), APP_TAG (empty), APP_PATH (empty). Exit codes: 0 after SIGTERM or SIGINT,
100 for a wrong setting, 111 when the address cannot be bound.
"""

import asyncio
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

COOKIE = "NODESESSID"
DELAY_MS, BODY_BYTES = 60_000, 1024
DELAY_ALLOWED = f'{{"delay": ms}} with a whole number, 0 to {DELAY_MS}, in at most {BODY_BYTES} bytes of JSON'


def read_settings(environ: Mapping[str, str]) -> tuple[str, int, str, str]:
    """Return address, port, tag and path from the environment.

    Raises:
        ValueError: A value is invalid; the text is one line.
    """
    host = environ.get("APP_HOST", "0.0.0.0")  # noqa: S104 - clients use any address of the container
    port, tag = environ.get("APP_PORT", "3000"), environ.get("APP_TAG", "")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"APP_HOST={host!r}: allowed is an IPv4 or IPv6 address") from None
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"APP_PORT={port!r}: allowed is a whole number, 1 to 65535")
    if not tag.isprintable():
        raise ValueError(f"APP_TAG={tag!r}: allowed is printable text, or empty")
    path = environ.get("APP_PATH", "")
    if not re.fullmatch("(/[A-Za-z0-9_.~-]+)*", path):
        raise ValueError(f"APP_PATH={path!r}: allowed is a path like /api, or empty")
    return host, int(port), tag, path


def count_view(cookie: str) -> tuple[str, int]:
    """Return the session id and the count of views, this one included; an invalid cookie starts a new session."""
    match = re.fullmatch(r"([0-9a-f]{16})\.([0-9]{1,9})", cookie)
    return (match[1], int(match[2]) + 1) if match else (secrets.token_hex(8), 1)


async def read_delay(request: Request) -> int | None:
    """Return the delay in the body, milliseconds; None when the body is not DELAY_ALLOWED."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES:
                return None
        wanted = json.loads(body)
    except (ValueError, RecursionError, ClientDisconnect):
        return None
    delay_ms = wanted.get("delay") if isinstance(wanted, dict) and len(wanted) == 1 else None
    return delay_ms if type(delay_ms) is int and 0 <= delay_ms <= DELAY_MS else None


class WebApp:
    """The ASGI application of one instance; each answer has the local address in X-Backend-IP."""

    def __init__(self, tag: str, path: str = "") -> None:
        self.path = path
        self.tag, self.host, self.delay_s = tag, socket.gethostname(), 0.0
        self.asked_s = time.monotonic()
        self.is_retired = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request = Request(scope, receive)
        ip = scope["server"][0]  # the accepted socket's address, which is never a wildcard
        is_own = scope["client"][0] == ip  # a container that asks itself has one address at both ends
        if not is_own:
            self.asked_s = time.monotonic()
        path, rest = scope["path"], scope["path"].removeprefix(self.path)
        match request.method, rest or "/" if rest[:1] in ("", "/") else path:
            case "GET", "/":
                response = await self.show(request, ip)
            case "GET" | "HEAD", "/" | "/health":
                status = ("retired", 503) if self.is_retired else ("ok", 200)
                response = JSONResponse({"status": status[0]}, status[1])
            case "GET", "/idle":
                response = JSONResponse({"idle_s": round(time.monotonic() - self.asked_s, 3)})
            case "POST", "/delay":
                response = await self.set_delay(request)
            case "POST", "/retire" if is_own:
                self.is_retired = True
                response = JSONResponse({"status": "retired"})
            case _:
                response = JSONResponse({"error": "only GET /, GET /health, GET /idle and POST /delay exist"}, 404)
        response.headers["X-Backend-IP"] = ip
        await response(scope, receive, send)

    async def show(self, request: Request, ip: str) -> Response:
        """Answer with this instance and the session's count of views, after the delay."""
        await asyncio.sleep(self.delay_s)
        session, views = count_view(request.cookies.get(COOKIE, ""))
        who = {"hello": "world!", "ip": ip, "host": self.host, "tag": self.tag}
        response = JSONResponse(who | {"sessionViews": views, "id": session})
        response.set_cookie(COOKIE, f"{session}.{views}", httponly=True, samesite="lax")
        return response

    async def set_delay(self, request: Request) -> Response:
        """Set the delay of GET /; an invalid request is answered with 400 and changes nothing."""
        delay_ms = await read_delay(request)
        if delay_ms is None:
            return JSONResponse({"error": f"allowed is {DELAY_ALLOWED}"}, 400)
        self.delay_s = delay_ms / 1000
        return JSONResponse({"delay": delay_ms})


def serve(listener: socket.socket, tag: str, path: str) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in flight for up to 30 seconds."""
    config = uvicorn.Config(
        WebApp(tag, path),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,  # warnings go to stderr unchanged
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than HAProxy's, so that HAProxy closes idle connections first
        timeout_graceful_shutdown=30,
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> int:
    """Read the settings, listen and serve; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # After its shutdown, Uvicorn raises the signal again. This handler makes that a clean exit.
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        host, port, tag, path = read_settings(os.environ)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        # Connections inherit the option; asyncio does not set it for sockets of create_server. Without it, a body
        # waits about 40 ms for the acknowledgement of its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"webapp: {error}\n")
        return 100 if isinstance(error, ValueError) else 111
    serve(listener, tag, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
