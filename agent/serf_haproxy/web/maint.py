"""Orders about nodes, given over HTTP: only at a Unix socket, by the way that `serf-haproxy maint` takes."""

import json
import pwd
from typing import Any

from serf_haproxy.control.give import Desk, Wish, read_end
from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.policy.orders import DRAIN, MAINT, STOP
from serf_haproxy.settings import Settings, variable
from serf_haproxy.web.request import JSON, Request, Response, refuse

_TEXTS = ("mode", "reason", "until", "by")
_SAME = ("same-origin", "none")  # Fetch Metadata: a page of ours, or an address that a person typed


class Maint:
    """Takes orders about nodes.

    Args:
        settings: The settings.

    Attributes:
        is_open: Whether orders are taken: who can open the Unix socket may write the state directory too.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.is_open = settings.web_bind.startswith("/")

    def refuse(self, request: Request) -> Response | None:
        """Return why a request gives no order, whatever its body says; None where it may give one.

        A page of another site can have a browser send requests to a forwarded socket, but not this type of
        content and not DELETE without asking first (CORS), and the browser says where the request comes from.
        """
        if request.method not in ("POST", "DELETE"):
            return refuse(405, "POST gives the order, DELETE undoes it", Allow="POST, DELETE")
        if not self.is_open:
            remedy = f"use `serf-haproxy maint`, or let {variable('web_bind')} be the path of a socket"
            return refuse(403, f"orders are taken at a Unix socket alone; {remedy}")
        headers = request.headers
        origin = headers.get("origin")
        is_foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
        if is_foreign or headers.get("sec-fetch-site", "none") not in _SAME:
            return refuse(403, "another site gives no orders here")
        if (request.method == "POST" or request.body) and headers.get("content-type", "") != JSON:
            return refuse(415, f"an order is of the type {JSON}")
        return None

    def obey(self, request: Request, node: str, service: str) -> Response:
        """Give or undo the order that a request describes; it may wait for the disk.

        Args:
            request: A request that is not refused.
            node: The node.
            service: The service; "" for all.
        """
        try:
            told = _read_body(request.body)
            end_s = read_end(told["until"]) if told["until"] else 0.0
            wish = Wish(end_s, told["by"] or _name_user(request.user), told["reason"], told["is_local"])
            desk = Desk(self._settings)
            if request.method == "DELETE":
                orders = desk.undo(node, service, wish, told["at_ms"])
            elif told["mode"] not in (DRAIN, STOP):
                raise InputError(f'the mode must be "{DRAIN}" or "{STOP}"')
            elif not told["reason"]:
                raise InputError("the reason is missing; status, explain and the history show it")
            else:
                orders = [desk.make(MAINT, told["mode"], wish, service, node)]
            when = desk.give(orders)
        except InputError as error:
            return refuse(400, str(error))
        except SystemFault as error:
            return refuse(503, str(error))
        answer = {"version": 1, "orders": [order._asdict() for order in orders], "when": when.removeprefix(", ")}
        return Response(200, json.dumps(answer).encode() + b"\n", JSON)


def _read_body(body: bytes) -> dict[str, Any]:
    """Return what a body says, with "" for what it does not say.

    Raises:
        InputError: It is no such object.
    """
    try:
        told: Any = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InputError("the body is no JSON") from error
    known = {**dict.fromkeys(_TEXTS, ""), "is_local": False, "at_ms": 0}
    if not isinstance(told, dict) or any(type(it) is not type(known.get(key)) for key, it in told.items()):
        raise InputError(f"the body must be an object with the texts {', '.join(_TEXTS)}, is_local and at_ms")
    return known | told


def _name_user(user: int | None) -> str:
    try:
        return "" if user is None else pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
