"""A configuration without its secrets, as far as they stand at places where HAProxy's language has secrets."""

import difflib
import re

HIDDEN = "********"

_DIFF_LINES = 400
_COMPARED_LINES = 20000

# Words after which the next word is a secret, and words after which all that follows may be one.
_NEXT = re.compile(
    r"\b((?:insecure-)?password|dynamic-cookie-key|stats\s+auth|auth-pass)(\s+)(?:\"[^\"]*\"|'[^']*'|\S+)"
)
_REST = re.compile(
    r"^(.*?(?:\b(?:presetenv|setenv)\s+\S+|\bsend(?:-binary|-lf|-binary-lf)?\s+[\"']?AUTH"
    r"|\b(?:proxy-)?authorization|\bcookie\s+(?=\S*=)|\bx-[a-z-]*(?:key|token|secret)[a-z-]*))[\\\s]+\S.*$",
    re.IGNORECASE,
)
_FUNCTION = re.compile(r"\b(aes_gcm_(?:dec|enc)|hmac|jwt_verify|base64_key)\([^)]*\)")


def mask(text: str) -> str:
    """Return a configuration's text with HIDDEN for each secret."""
    return "".join(map(_mask_line, text.splitlines(keepends=True)))


def compare(before: str, after: str) -> list[str]:
    """Return the lines of a unified diff of two texts without secrets, at most 400."""
    old, new = before.splitlines(), after.splitlines()
    if max(len(old), len(new)) > _COMPARED_LINES:
        return ["the configuration is too long to be compared here"]
    lines = list(difflib.unified_diff(old, new, "before", "now", n=1, lineterm=""))
    more = len(lines) - _DIFF_LINES
    return [*lines[:_DIFF_LINES], *([f"... {more} more lines"] if more > 0 else [])]


def _mask_line(line: str) -> str:
    if line.lstrip().startswith("#"):
        return line
    end = "\n" if line.endswith("\n") else ""
    text = _FUNCTION.sub(rf"\1({HIDDEN})", _NEXT.sub(rf"\1\2{HIDDEN}", line.rstrip("\n")))
    found = _REST.match(text)
    return (f"{found[1]} {HIDDEN}" if found else text) + end
