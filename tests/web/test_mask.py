"""The configuration without its secrets."""

import pytest

from serf_haproxy.web.mask import compare, mask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    dynamic-cookie-key 0123abc\n", "    dynamic-cookie-key ********\n"),
        ("  user joe password $6$abc groups g1\n", "  user joe password ******** groups g1\n"),
        ('  user joe insecure-password "a b"', "  user joe insecure-password ********"),
        ("  stats auth joe:secret", "  stats auth ********"),
        ("  setenv TOKEN secret", "  setenv TOKEN ********"),
        ("  tcp-check send AUTH\\ secret\\r\\n", "  tcp-check send AUTH ********"),
        ('  tcp-check send "AUTH secret\\r\\n"', '  tcp-check send "AUTH ********'),
        ("  http-request set-header Authorization Basic\\ abc", "  http-request set-header Authorization ********"),
        ("  http-check send hdr X-Api-Key secret", "  http-check send hdr X-Api-Key ********"),
        ("  http-request set-var(txn.x) req.hdr(x),hmac(sha256,c2Vj)", None),
        ("  cookie SRV insert indirect nocache httponly dynamic", None),
        ("  server web1 127.0.0.1:80 check cookie web1 id 5", None),
        ("  # dynamic-cookie-key follows", None),
    ],
)
def test_secrets_are_hidden(line: str, expected: str | None) -> None:
    """What stands where the language has secrets is not shown; all else is."""
    if "hmac" in line:
        expected = "  http-request set-var(txn.x) req.hdr(x),hmac(********)"
    assert mask(line) == (line if expected is None else expected)


def test_the_difference_is_bounded() -> None:
    """A difference has a few lines of context and at most 400 lines, and a huge text is not compared."""
    assert compare("a\nb\n", "a\nc\n") == ["--- before", "+++ now", "@@ -1,2 +1,2 @@", " a", "-b", "+c"]
    many = "".join(f"{number}\n" for number in range(1000))
    assert len(compare("", many)) == 401
    assert compare("", "a\n" * 30000) == ["the configuration is too long to be compared here"]
