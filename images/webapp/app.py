"""The demo web application: its answers name the instance, and it can be made slow or broken.

GET / answers, HEAD / and GET /health check the health. GET /idle says for how long no request has come from elsewhere.
After POST /retire, which only this machine may send, health checks get 503: balancers send no more requests, and the
application may end. The count of session views is in the memory of this process, and its cookie NODESESSID has only the
session's id: a client that gets to another server begins again.

A request may bring work: `X-Work-Us`, microseconds up to one second. WORKER_COUNT requests are worked on at a time, the
others wait in their order. The work is a pause.

Two requests change the instance. They count only from this machine, not through a balancer:
POST /delay {"delay": ms} slows every answer, those to health checks too, or not with "checks": false.
POST /behaviour {"times": 10} makes all work ten times as long; a request that brings none then has ORDINARY_WORK_S.
{"status": 500} has GET / answer with this status at once; health checks stay good.

With APP_PATH=/api it answers at /api and below too, as at / and below: a balancer's route may lead there.

Settings: APP_HOST (0.0.0.0), APP_PORT (3000), APP_TAG (empty), APP_PATH (empty). Exit codes: 0 after SIGTERM or SIGINT,
100 for a wrong setting, 111 when the address cannot be bound.
"""

import asyncio
import collections
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
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

COOKIE = "NODESESSID"
SESSION_COUNT = 10_000
WORKER_COUNT = 4
ORDINARY_WORK_S, LONGEST_WORK_US = 0.02, 1_000_000
DELAY_MS, BODY_BYTES = 60_000, 1024
DELAY_ALLOWED = f'{{"delay": ms}} with a whole number, 0 to {DELAY_MS}, in at most {BODY_BYTES} bytes of JSON'
BEHAVIOUR_ALLOWED = '{"times": 0.1 to 1000} or {"status": 200 to 599}, or both'
# A request that has passed a proxy has one of these.
PROXY_HEADERS = ("x-forwarded-for", "forwarded", "cdn-loop", "via")


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


class Sessions:
    """The sessions of this process: their views by id. The one that was silent longest makes room for a new one."""

    def __init__(self) -> None:
        self._views: collections.OrderedDict[str, int] = collections.OrderedDict()

    def count_view(self, session: str) -> tuple[str, int]:
        """Return the id and the count of views, this one included; an id that is unknown here starts a new session."""
        if session not in self._views:
            session = secrets.token_hex(8)
        views = self._views[session] = self._views.get(session, 0) + 1
        self._views.move_to_end(session)
        if len(self._views) > SESSION_COUNT:
            self._views.popitem(last=False)
        return session, views


async def read_body(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body; an empty one for anything else, or for more than BODY_BYTES."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES:
                return {}
        wanted = json.loads(body)
    except (ValueError, RecursionError, ClientDisconnect):
        return {}
    return wanted if isinstance(wanted, dict) else {}


def read_delay(wanted: dict[str, Any]) -> tuple[float, bool] | None:
    """Return the delay, seconds, and whether it is for health checks too; None when it is not DELAY_ALLOWED."""
    delay_ms, checks = wanted.get("delay"), wanted.get("checks", True)
    if type(delay_ms) is not int or not 0 <= delay_ms <= DELAY_MS or not isinstance(checks, bool):
        return None
    return None if wanted.keys() - {"delay", "checks"} else (delay_ms / 1000, checks)


def read_behaviour(wanted: dict[str, Any]) -> dict[str, float] | None:
    """Return the keys of a change of the behaviour; None when it is not BEHAVIOUR_ALLOWED."""
    times, status = wanted.get("times", 1), wanted.get("status", 200)
    is_right = type(times) in (int, float) and 0.1 <= times <= 1000 and type(status) is int and 200 <= status <= 599
    return wanted if is_right and wanted and not wanted.keys() - {"times", "status"} else None


def read_work_s(request: Request, times: float) -> float:
    """Return how long the work of a request takes here, seconds."""
    text = request.headers.get("x-work-us", "")
    if re.fullmatch("[0-9]{1,9}", text):
        return times * min(int(text), LONGEST_WORK_US) / 1e6
    return times * ORDINARY_WORK_S if times != 1 else 0.0


class WebApp:
    """The ASGI application of one instance; each answer has the local address in X-Backend-IP."""

    def __init__(self, tag: str, path: str = "") -> None:
        self.path = path
        self.tag, self.host = tag, socket.gethostname()
        self.delay_s, self.delays_checks = 0.0, True
        self.times, self.status = 1.0, 200
        self.sessions, self.workers = Sessions(), asyncio.Semaphore(WORKER_COUNT)
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
                if self.delays_checks and not is_own:
                    await asyncio.sleep(self.delay_s)
                status = ("retired", 503) if self.is_retired else ("ok", 200)
                response = JSONResponse({"status": status[0]}, status[1])
            case "GET", "/idle":
                response = JSONResponse({"idle_s": round(time.monotonic() - self.asked_s, 3)})
            case "POST", "/delay" if is_ours(request):
                response = await self.set_delay(request)
            case "POST", "/behaviour" if is_ours(request):
                response = await self.set_behaviour(request)
            case "POST", "/retire" if is_own:
                self.is_retired = True
                response = JSONResponse({"status": "retired"})
            case _:
                response = JSONResponse({"error": "only GET /, GET /health and GET /idle exist for you"}, 404)
        response.headers["X-Backend-IP"] = ip
        await response(scope, receive, send)

    async def show(self, request: Request, ip: str) -> Response:
        """Answer with this instance and the session's count of views, after the delay and the work."""
        await asyncio.sleep(self.delay_s)
        if self.status != 200:
            return JSONResponse({"error": "this instance was told to answer so"}, self.status)
        if work_s := read_work_s(request, self.times):
            async with self.workers:
                await asyncio.sleep(work_s)
        session, views = self.sessions.count_view(request.cookies.get(COOKIE, ""))
        who = {"hello": "world!", "ip": ip, "host": self.host, "tag": self.tag}
        response = JSONResponse(who | {"sessionViews": views, "id": session})
        response.set_cookie(COOKIE, session, httponly=True, samesite="lax")
        return response

    async def set_delay(self, request: Request) -> Response:
        """Set the delay; an invalid request is answered with 400 and changes nothing."""
        delay = read_delay(await read_body(request))
        if delay is None:
            return JSONResponse({"error": f"allowed is {DELAY_ALLOWED}"}, 400)
        self.delay_s, self.delays_checks = delay
        return JSONResponse({"delay": round(1000 * self.delay_s)})

    async def set_behaviour(self, request: Request) -> Response:
        """Set what the request names; an invalid request is answered with 400 and changes nothing."""
        wanted = read_behaviour(await read_body(request))
        if wanted is None:
            return JSONResponse({"error": f"allowed is {BEHAVIOUR_ALLOWED}"}, 400)
        self.times, self.status = wanted.get("times", self.times), int(wanted.get("status", self.status))
        return JSONResponse({"times": self.times, "status": self.status})


def is_ours(request: Request) -> bool:
    """Return whether a request comes from this machine, and not through a balancer."""
    client, server = request.scope["client"][0], request.scope["server"][0]
    is_near = client == server or ipaddress.ip_address(client).is_loopback
    return is_near and not any(name in request.headers for name in PROXY_HEADERS)


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
        proxy_headers=False,  # the client is who connects, whatever a header says
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
