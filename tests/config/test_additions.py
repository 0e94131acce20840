"""Which servers HAProxy is known to refuse at run time."""

import pytest

from serf_haproxy.config.additions import finds_refused

ADD = "add server shop/web1 10.0.0.1:80 weight 1"


@pytest.mark.parametrize(
    ("section", "words", "version", "is_refused"),
    [
        ("balance roundrobin", "check", "2.6.12", False),
        ("balance static-rr", "check", "3.2.0", True),
        ("balance source", "check", "2.6.12", True),
        ("balance hdr(host)\n    hash-type consistent", "check", "2.6.12", False),
        ("balance roundrobin", "check cookie web1", "2.6.12-1+deb12u3", True),
        ("balance roundrobin", "check cookie web1", "3.0.11", False),
    ],
)
def test_an_added_server_is_refused(section: str, words: str, version: str, is_refused: bool) -> None:
    """By its section's algorithm, or for a cookie before HAProxy 3.0."""
    text = f"backend other\n    balance static-rr\n\nbackend shop\n    {section}\n    server web1 10.0.0.1:80\n"
    assert finds_refused([f"{ADD} {words}", "set server shop/web1 state ready"], text, version) == is_refused


def test_nothing_else_is_refused() -> None:
    """A weight, or a server that goes, works with every algorithm."""
    assert not finds_refused(["set server shop/web1 weight 1"], "backend shop\n    balance static-rr\n", "2.6")
