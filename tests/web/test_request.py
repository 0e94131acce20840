"""Heads of requests, right and hostile."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.web.request import (
    HEAD_BYTES,
    BadRequestError,
    Response,
    format_head,
    parse_head,
    read_request,
    refuse,
)


def refused(head: str) -> int:
    """Return the status code by which a head is refused."""
    with pytest.raises(BadRequestError) as caught:
        parse_head(head)
    return caught.value.response.status


def test_a_request_is_taken_apart() -> None:
    """Method, decoded parts of the path without the query, and headers by lower-case name."""
    head = "GET /v1/services/a%2Fb/servers/w%201?x=/y HTTP/1.1\r\nHost:  lb:1940 \r\nAuthorization: Bearer a b\r\n\r\n"
    request = parse_head(head)
    assert request.method == "GET"
    assert request.path == ("v1", "services", "a/b", "servers", "w 1")
    assert request.headers == {"host": "lb:1940", "authorization": "Bearer a b"}
    assert parse_head("HEAD / HTTP/1.0\r\n\r\n").path == ("",)


@pytest.mark.parametrize(
    "head",
    [
        "\r\n\r\n",
        "GET / HTTP/2\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "get / HTTP/1.1\r\n\r\n",
        "GET http://lb/ HTTP/1.1\r\n\r\n",
        "GET /\x00 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\x1b[2J\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(head: str) -> None:
    """A head that another program might read in another way gets 400."""
    assert refused(head) == 400


def test_a_refusal_may_repeat_any_text() -> None:
    """Half of a surrogate pair, which JSON can have and UTF-8 cannot, is escaped."""
    assert refuse(400, "until \ud800: no time").body == b"until \\ud800: no time\n"


@given(st.text(st.characters(max_codepoint=255), max_size=300))
def test_no_head_does_more_than_be_refused(text: str) -> None:
    """Any bytes are a request or are refused."""
    for head in (text, f"GET /{text} HTTP/1.1\r\n\r\n", f"GET / HTTP/1.1\r\nX: {text}\r\n\r\n"):
        with contextlib.suppress(BadRequestError):
            assert all(value.isprintable() or "\t" in value for value in parse_head(head).headers.values())


def read(data: bytes) -> object:
    """Return what comes of bytes from a client that then goes: a request, a status code, or the error's type."""

    async def try_it() -> object:
        reader = asyncio.StreamReader(limit=HEAD_BYTES)
        reader.feed_data(data)
        reader.feed_eof()
        try:
            return await read_request(reader)
        except BadRequestError as error:
            return error.response.status
        except EOFError:
            return EOFError

    return asyncio.run(try_it())


def test_heads_that_are_too_long_or_too_short() -> None:
    """A head beyond the limit gets 431; one whose client goes before its end gets nothing."""
    assert read(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n") == 431
    assert read(b"GET / HTTP/1.1\r\nX: x") is EOFError
    assert read(b"") is EOFError


def test_responses_name_their_rules() -> None:
    """Each response forbids sniffing, framing and storing; a header of its own replaces the general one."""
    head = format_head(Response(200, b"", headers={"Content-Security-Policy": "default-src 'self'"}), 5).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert head.endswith("\r\n\r\n")
    for line in ("X-Content-Type-Options: nosniff", "X-Frame-Options: DENY", "Cache-Control: no-store"):
        assert f"\r\n{line}\r\n" in head
    assert head.count("Content-Security-Policy") == 1
    assert "Content-Length: 5" in head
    assert "Content-Length" not in format_head(Response(200, b""), None).decode()
