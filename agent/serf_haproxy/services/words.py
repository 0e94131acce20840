"""The kinds of values that only a service has, and how HAProxy's configuration writes them."""

import re
from typing import Any

from serf_haproxy.services import VERSION
from serf_haproxy.system.kinds import BALANCE_ALGORITHMS, Kind, choose, match

HASH = "hash"
MEASURED = "measured"
WEIGHED = ("roundrobin", "leastconn", "random")  # the algorithms that follow weights, also when they change at run time
PROTOCOL_CHECKS = {  # what HAProxy's own checks of these protocols do
    "pgsql": "the beginning of a PostgreSQL login",
    "redis": "PING to Redis",
    "mysql": "a MySQL login",
    "smtp": "EHLO to a mail server",
}
_FETCHES = {"source": "src", "path": "path", "uri": "pathq"}  # HAProxy's sample fetches
_NAMED = re.compile(r"(header|cookie):([A-Za-z0-9_-]{1,64})", re.ASCII)


def _read_split(text: str) -> tuple[tuple[str, int], ...]:
    pairs: list[Any] = [pair.split("=") for pair in text.split(",")]
    shares = {version: int(share) for version, share in pairs if VERSION.fullmatch(version) and share.isdecimal()}
    if len(shares) != len(pairs) or sum(shares.values()) != 100:
        raise ValueError(text)
    return tuple(sorted(shares.items()))


ALGORITHM = choose(*BALANCE_ALGORITHMS, HASH)
BACKUPS = choose("first", "all")
HASH_KEY = match("source, path, uri, header:NAME or cookie:NAME", "source|path|uri|(header|cookie):[A-Za-z0-9_-]{1,64}")
PROTOCOL = choose("h1", "h2")
SPLIT = Kind(
    "a table of versions and their shares, whole numbers that sum to 100, like {v1 = 95, v2 = 5}",
    _read_split,
    {
        "additionalProperties": False,
        "minProperties": 1,
        "patternProperties": {f"^{VERSION.pattern}$": {"type": "integer", "minimum": 0, "maximum": 100}},
    },
)
HEALTH = choose("http", "tcp", *PROTOCOL_CHECKS)
HEALTH_USER = match("up to 32 letters, digits, dashes and underscores", "[A-Za-z0-9_][A-Za-z0-9_-]{0,31}")
TLS_NAME = match("a host name", "[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
TRUTH = Kind("true or false", {"True": True, "False": False}.__getitem__)


def write_fetch(hash_key: str) -> str:
    """Return HAProxy's sample fetch for a hash key, "" for none."""
    found = _NAMED.fullmatch(hash_key)
    return f"req.{'hdr' if found[1] == 'header' else 'cook'}({found[2]})" if found else _FETCHES.get(hash_key, "")
