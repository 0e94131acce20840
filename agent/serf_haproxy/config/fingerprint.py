"""The mark at the end of every configuration, a fingerprint by which HAProxy confirms what it runs. Pure.

It is a `global` section of its own: HAProxy merges such sections and the last `description` counts, so a template
needs to know nothing about it. The description is `serf-haproxy-DIGEST-REST`: DIGEST is of the whole text before the
fingerprint, REST of everything but the servers that the runtime socket can change.
"""

import hashlib
import re

_WORD = "serf-haproxy"
_SECTION = """\

# The mark by which HAProxy confirms that it runs this configuration ("show info", line "description").
global
    description {description}
"""
_DESCRIPTION = re.compile(rf"{_WORD}-([0-9a-f]{{16}})-[0-9a-f]{{16}}\n")
_HEAD = _SECTION.partition("{")[0]


def digest(text: str) -> str:
    """Return 16 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def describe(text_digest: str, rest: str) -> str:
    """Return the description of a configuration from its two digests."""
    return f"{_WORD}-{text_digest}-{rest}"


def append(text: str, description: str) -> str:
    """Return a text with the fingerprint at its end."""
    return text + _SECTION.format(description=description)


def strip(text: str) -> str:
    """Return a text without the fingerprint that it may have."""
    return _split(text)[0]


def is_marked(text: str) -> bool:
    """Return whether serf-haproxy made a text, even when it was changed since."""
    return _HEAD in text


def description_of(text: str) -> str:
    """Return the description that a text carries; "" for a text that is not ours, or was changed."""
    body, mark = _split(text)
    found = _DESCRIPTION.fullmatch(mark)
    return mark.rstrip("\n") if found and found[1] == digest(body) else ""


def digest_of(text: str) -> str:
    """Return the digest that a text carries; "" for a text that is not ours, or was changed."""
    return description_of(text).removeprefix(f"{_WORD}-").partition("-")[0]


def rest_of(description: str) -> str:
    """Return the digest of everything but the servers from a description that HAProxy reports; "" without one."""
    word, _, digests = description.rpartition(f"{_WORD}-")
    return "" if word else digests.partition("-")[2]


def _split(text: str) -> tuple[str, str]:
    """Return a text before its fingerprint, and the description with its line feed; "" for none."""
    body, separator, mark = text.rpartition(_HEAD)
    return (body, mark) if separator else (text, "")
