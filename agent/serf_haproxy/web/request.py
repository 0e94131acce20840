"""Requests and responses of HTTP/1.1, as little of it as is needed: one request for each connection."""

import asyncio
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

HEAD_BYTES = 8192  # request line and headers together
BODY_BYTES = 4096
JSON = "application/json"

_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,2047}) HTTP/1\.[01]", re.ASCII)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}", re.ASCII)
_ONCE = ("host", "authorization", "content-length", "content-type", "transfer-encoding", "origin", "sec-fetch-site")
_LENGTH = re.compile(r"[0-9]{1,10}", re.ASCII)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_ALWAYS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Request(NamedTuple):
    """A request.

    Attributes:
        method: Upper case.
        path: The parts of the path, decoded; [""] for "/". The query is left out.
        headers: By lower-case name.
        body: The body of POST and DELETE; b"" for other methods, of which it is not read.
        user: The number of the user at the other end of a Unix socket, None elsewhere.
    """

    method: str
    path: tuple[str, ...]
    headers: Mapping[str, str]
    body: bytes = b""
    user: int | None = None


class Response(NamedTuple):
    """A response.

    Attributes:
        status: The status code.
        body: The body.
        content_type: Its type.
        headers: Further headers, which replace those that every response has.
    """

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}


class BadRequestError(Exception):
    """A request that gets no answer but this one.

    Args:
        status: The status code.
        text: What is wrong.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = refuse(status, text)


def refuse(status: int, text: str, **headers: str) -> Response:
    """Return a response that says in one line why there is no other one."""
    body = f"{text}\n".encode("utf-8", "backslashreplace")  # it may repeat what a client has sent
    return Response(status, body, headers={name.replace("_", "-"): it for name, it in headers.items()})


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Read a request.

    Raises:
        BadRequestError: It is too long, or no HTTP.
        EOFError: The client went before its end.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise BadRequestError(431, f"the head of a request has at most {HEAD_BYTES} bytes") from error
    request = parse_head(head.decode("latin-1"))
    length = find_length(request)
    return request._replace(body=await reader.readexactly(length)) if length else request


def find_length(request: Request) -> int:
    """Return how many bytes of a body follow the head; 0 for a method whose body is not read.

    Raises:
        BadRequestError: That is not clear, or too many.
    """
    text, coding = request.headers.get("content-length"), request.headers.get("transfer-encoding")
    if (text is not None and (coding is not None or not _LENGTH.fullmatch(text))) or coding == "":
        raise BadRequestError(400, "the length of the body is not clear")
    if request.method not in ("POST", "DELETE"):
        return 0
    if coding is not None or (text is None and request.method == "POST"):
        raise BadRequestError(411, "send the body as a whole, with Content-Length")
    if int(text or 0) > BODY_BYTES:
        raise BadRequestError(413, f"a body has at most {BODY_BYTES} bytes")
    return int(text or 0)


def parse_head(head: str) -> Request:
    """Return the request with this head, which ends with an empty line.

    Raises:
        BadRequestError: It is no HTTP.
    """
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    found = _LINE.fullmatch(first)
    if not found:
        raise BadRequestError(400, "this is no request of HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not _NAME.fullmatch(name) or not value.strip("\t").isprintable():
            raise BadRequestError(400, "a header is no header of HTTP/1.1")
        if name in headers and name in _ONCE:
            raise BadRequestError(400, "a header occurs twice")
        headers[name] = value.strip(" \t")
    return Request(found[1], tuple(unquote(part) for part in found[2].partition("?")[0][1:].split("/")), headers)


def format_head(response: Response, length: int | None) -> bytes:
    """Return status line and headers.

    Args:
        response: The response.
        length: Bytes of its body; None for one that has no end.
    """
    headers = {"Content-Type": response.content_type, **_ALWAYS}
    if length is not None:
        headers["Content-Length"] = str(length)
    headers |= response.headers
    lines = [f"HTTP/1.1 {response.status} {_REASONS[response.status]}", *map(": ".join, headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
