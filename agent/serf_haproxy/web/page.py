"""The page: one file without requests elsewhere, and a policy that lets only its own script and style count."""

import base64
import hashlib
import re
from importlib import resources

from serf_haproxy.web.request import Response

_PART = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class Page:
    """The page as a response.

    Attributes:
        response: The response.
    """

    def __init__(self) -> None:
        text = resources.files(__package__).joinpath("files", "page.html").read_text()
        sources = {kind: f"'sha256-{_digest(content)}'" for kind, content in _PART.findall(text)}
        policy = (
            f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {"Content-Security-Policy": policy}
        self.response = Response(200, text.encode(), "text/html; charset=utf-8", headers)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
