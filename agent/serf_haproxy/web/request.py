"""Requests and responses of HTTP/1.1, as little of it as is needed: GET and HEAD, one request for each connection."""

import asyncio
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

HEAD_BYTES = 8192  # request line and headers together

_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,2047}) HTTP/1\.[01]", re.ASCII)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}", re.ASCII)
_ONCE = ("host", "authorization")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
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
    """A request without its body, which is not read.

    Attributes:
        method: Upper case.
        path: The parts of the path, decoded; [""] for "/". The query is left out.
        headers: By lower-case name.
    """

    method: str
    path: tuple[str, ...]
    headers: Mapping[str, str]


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
    return Response(status, f"{text}\n".encode(), headers={name.replace("_", "-"): it for name, it in headers.items()})


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Read the head of a request.

    Raises:
        BadRequestError: It is too long, or no HTTP.
        EOFError: The client went before its end.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise BadRequestError(431, f"the head of a request has at most {HEAD_BYTES} bytes") from error
    return parse_head(head.decode("latin-1"))


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
