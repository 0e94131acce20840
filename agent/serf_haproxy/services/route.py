"""Routes: which requests belong to which service."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]*"  # HAProxy would take a pattern with a dash in front for an option
_HOST = rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*"
_TEXT = rf"({_HOST})?((?:/[A-Za-z0-9_.~%-]+)*/?)"
_ROUTE = re.compile(_TEXT, re.ASCII)
_SOME = rf"(?!/?(,|$)){_TEXT}"  # not nothing, nor a slash alone
ROUTE_PATTERN = rf"^{_SOME}(,{_SOME})*$"  # as JSON Schema has it
HOSTS_PATTERN = rf"^{_HOST}/?(,{_HOST}/?)*$"
_LENGTH = 255  # characters


class Route(NamedTuple):
    """Which requests belong to a service.

    Attributes:
        host: A host name in lower case; "" for every host.
        is_wildcard: Whether the names below the host are meant, not the host itself.
        path: This path and all paths below it, without a slash at the end; "" for every path.
        service: The service's name; "" in a route alone.
    """

    host: str
    is_wildcard: bool
    path: str
    service: str = ""

    @property
    def text(self) -> str:
        """The route as the operator writes it."""
        return ("*." if self.is_wildcard else "") + self.host + self.path

    @property
    def precision(self) -> tuple[bool, bool, int, int]:
        """What decides where several routes match: a host before a wildcard before none, then the longer text."""
        return self.host != "", not self.is_wildcard, len(self.host), len(self.path)


def read_route(text: str) -> Route:
    """Return the route in a text like `shop.example.com`, `*.example.com/api` or `/api`.

    Raises:
        ValueError: It is no route.
    """
    found = _ROUTE.fullmatch(text)
    if not found or not text.strip("/") or len(text) > _LENGTH:
        raise ValueError(text)
    host, path = (found[1] or "").lower(), found[2].rstrip("/")
    return Route(host.removeprefix("*."), host.startswith("*."), path)


def read_routes(text: str) -> tuple[str, ...]:
    """Return the routes in a text, separated by commas, each in its normal form, sorted.

    Raises:
        ValueError: There is none, or one is wrong.
    """
    return tuple(sorted({read_route(word).text for word in text.split(",")}))


def read_hosts(text: str) -> tuple[str, ...]:
    """Return the hosts and wildcards in a text, separated by commas, each in its normal form, sorted.

    Raises:
        ValueError: There is none, or one is wrong or has a path.
    """
    routes = {read_route(word) for word in text.split(",")}
    if any(route.path or not route.host for route in routes):
        raise ValueError(text)
    return tuple(sorted(route.text for route in routes))


def sort_routes(routes: Iterable[tuple[str, str]]) -> list[Route]:
    """Return routes in order of precision, the least precise first: in this order a later match overrides.

    Args:
        routes: The text of each route, and the name of its service.
    """
    found = [read_route(text)._replace(service=service) for text, service in routes]
    return sorted(found, key=lambda route: (route.precision, route))
