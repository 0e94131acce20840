"""Kinds of values that an operator writes as text: what is allowed, and how it is read."""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from serf_haproxy.system.network import read_networks, read_ports

_SOCKET_BYTES = 107  # the longest path of a Unix socket
BALANCE_ALGORITHMS = ("roundrobin", "leastconn", "first", "random", "static-rr", "source", "uri")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        allowed: What is allowed, in words.
        read: Reads it, or raises ValueError or KeyError.
        schema: What JSON Schema can say of a value, or of each value of a list.
    """

    allowed: str
    read: Callable[[str], Any]
    schema: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)


def _path(text: str) -> str:
    # Some paths become words of haproxy.cfg, where these characters have a special meaning.
    if not (text.startswith("/") and text.isprintable() and set(" \"'#$\\").isdisjoint(text)):
        raise ValueError(text)
    return text


def _matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(text)
        return text

    return read


def _between(convert: Callable[[str], float], low: float, high: float) -> Callable[[str], Any]:
    def read(text: str) -> float:
        value = convert(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _words(text: str) -> tuple[str, ...]:
    return tuple(sorted({_matching(r"[A-Za-z0-9_.-]+")(word) for word in text.replace(",", " ").split()}))


def _bind(text: str) -> str:
    pattern = r"(\*|[0-9A-Fa-f:.]*|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]):[0-9]+"
    host, _, port = _matching(pattern)(text).rpartition(":")
    if host not in ("", "*"):
        ipaddress.ip_address(host.strip("[]"))
    _between(int, 1, 65535)(port)
    return text


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return _matching(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+")(host).strip("[]"), _between(int, 1, 65535)(port)


def _listener(text: str) -> str:
    if not text.startswith("/"):
        return _bind(text) if text else text
    if len(os.fsencode(text)) > _SOCKET_BYTES:
        raise ValueError(text)
    return _path(text)


def match(allowed: str, pattern: str) -> Kind:
    """Return the kind of texts that a regular expression describes; it is one of JSON Schema too."""
    return Kind(allowed, _matching(pattern), {"pattern": f"^(?:{pattern})$"})


def choose(*words: str, allowed: str = "") -> Kind:
    """Return the kind of a few words."""
    listed = " or ".join(words) if len(words) < 3 else "one of " + ", ".join(words)  # fewer: "http or tcp"
    return Kind(allowed or listed, {word: word for word in words}.__getitem__, {"enum": list(words)})


def _or_empty(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text else text


_PATH = r"/[^\s\x00-\x1f\x7f\"'#$\\]*"
PATH = Kind("an absolute path without blanks, quotes, backslash, # and $", _path, {"pattern": f"^{_PATH}$"})
OPTIONAL_PATH = Kind(f"{PATH.allowed}; or empty", _or_empty(_path), {"pattern": f"^({_PATH})?$"})
WORDS = Kind(
    "words of letters, digits, dot, dash and underscore, separated by commas",
    _words,
    {"pattern": r"^[A-Za-z0-9_.,\s-]*$"},
)
PLAIN_PATH = Kind("an absolute path of letters, digits and /_.+-", _matching(r"/[A-Za-z0-9/_.+-]*"))
BIND = Kind(
    "address:port with an IP address, * or nothing before the colon",
    _bind,
    {"pattern": r"^(\*|[0-9A-Fa-f:.]*|\[[0-9A-Fa-f:.]*\]):[0-9]+$"},
)
OPTIONAL_BIND = Kind(f"{BIND.allowed}; or empty", _or_empty(_bind))
HOST_PORT = Kind("host:port", _host_port)
LISTENER = Kind(
    "empty, address:port with an IP address, or the absolute path of a Unix socket of at most 107 bytes", _listener
)
PROGRAM = Kind("a program's name or absolute path", _matching(r"[A-Za-z0-9_./+-]+"))
URL_PATH = match("a URL path of letters, digits and /_.-~?=&%", r"/[A-Za-z0-9/_.~?=&%-]*")
NETWORKS = Kind("networks like 10.1.0.0/16, separated by commas", read_networks, {"pattern": r"^[0-9A-Fa-f:./, ]*$"})
PORTS = Kind("ports and ranges like 80,8000-8999", read_ports, {"pattern": r"^[0-9, -]*$"})
SWITCH = Kind("on or off", lambda text: {"on": True, "off": False}[text])
MODE = Kind("600 or 660", _matching("6[06]0"))
BALANCE = choose(*BALANCE_ALGORITHMS)
WEIGHTS = choose("static", "measured")
METHOD = choose("HEAD", "GET", "OPTIONS", allowed="HEAD, GET or OPTIONS")
HOST = match("a host name or IP address, with a port or without", r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
DOMAIN = match(
    "a domain in lower case, such as apps.example.com; or empty",
    r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,7})?",
)
FORWARDING = choose("replace", "append", "off", allowed="replace, append or off")
BALANCER_NAME = Kind("letters, digits, dot, dash and underscore; or empty", _matching(r"[A-Za-z0-9_.-]{0,128}"))
COOKIE = match("a cookie name of letters, digits, dash and underscore, or empty", r"[A-Za-z0-9_-]*")


def seconds(low: float, high: float) -> Kind:
    """Return the kind of a time within limits."""
    schema = {"type": "number", "minimum": low, "maximum": high}
    return Kind(f"{low:g} to {high:g} seconds", _between(float, low, high), schema)


def count(low: int, high: int) -> Kind:
    """Return the kind of a whole number within limits."""
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Kind(f"a whole number, {low} to {high}", _between(int, low, high), schema)


def number(low: float, high: float) -> Kind:
    """Return the kind of a number within limits."""
    schema = {"type": "number", "minimum": low, "maximum": high}
    return Kind(f"a number, {low:g} to {high:g}", _between(float, low, high), schema)
