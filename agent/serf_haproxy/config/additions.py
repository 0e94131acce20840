"""Which servers HAProxy is known to refuse to add at run time, so that a reload follows. Pure.

Nothing depends on it but what a plan says: a pass tries, and sees what HAProxy then has.
"""

import re
from collections.abc import Iterable

_FIXED = frozenset(["static-rr"])  # algorithms that take no server at run time
_HASHES = frozenset(["source", "uri", "url_param", "hdr", "hash", "rdp-cookie"])  # only where they are consistent
_COOKIE_FROM = (3, 0)  # HAProxy before it knows no cookie of an added server
_VERSION = re.compile(r"(\d+)\.(\d+)")


def finds_refused(commands: Iterable[str], text: str, version: str) -> bool:
    """Return whether HAProxy refuses one of these commands.

    Args:
        commands: For the runtime socket.
        text: The configuration that they lead to.
        version: HAProxy's version as it reports it.
    """
    added = [command.split(" ") for command in commands if command.startswith("add server ")]
    if not added:
        return False
    found = _VERSION.match(version)
    has_cookies = found is None or (int(found[1]), int(found[2])) >= _COOKIE_FROM
    static = _list_static(text)
    return any(words[2].partition("/")[0] in static or ("cookie" in words[3:] and not has_cookies) for words in added)


def _list_static(text: str) -> set[str]:
    """Return the sections whose algorithm takes no server at run time."""
    static, section, algorithm, hashing = set(), "", "", ""
    for line in [*text.splitlines(), "global"]:
        words = line.split()
        if not words:
            continue
        if not line[0].isspace() and line[0] != "#":
            if algorithm in _FIXED or (algorithm in _HASHES and hashing != "consistent"):
                static.add(section)
            section, algorithm, hashing = (words[1] if len(words) > 1 else ""), "", ""
        elif words[0] == "balance" and len(words) > 1:
            algorithm = words[1].partition("(")[0]
        elif words[0] == "hash-type" and len(words) > 1:
            hashing = words[1]
    return static
