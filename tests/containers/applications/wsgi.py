"""An application for gunicorn."""

from collections.abc import Callable, Iterable
from typing import Any


def application(
    _environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    """Answer each request."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7")])
    return [b"served\n"]
