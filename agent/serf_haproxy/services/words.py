"""The kinds of values that only a service has, and how HAProxy's configuration writes them."""

import re
from typing import Any

from serf_haproxy.services import VERSION
from serf_haproxy.system.kinds import BALANCE_ALGORITHMS, Kind

HASH = "hash"
PROTOCOL_CHECKS = {  # what HAProxy's own checks of these protocols do
    "pgsql": "the beginning of a PostgreSQL login",
    "redis": "PING to Redis",
    "mysql": "a MySQL login",
    "smtp": "EHLO to a mail server",
}
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,31}", re.ASCII)
_FETCHES = {"source": "src", "path": "path", "uri": "pathq"}  # HAProxy's sample fetches
_NAMED = re.compile(r"(header|cookie):([A-Za-z0-9_-]{1,64})", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII | re.IGNORECASE)


def _choose(*words: str, allowed: str = "") -> Kind:
    return Kind(allowed or " or ".join(words), {word: word for word in words}.__getitem__)


def _read_hash_key(text: str) -> str:
    if text not in _FETCHES and not _NAMED.fullmatch(text):
        raise ValueError(text)
    return text


def _read_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(text)
    return text


def _read_user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise ValueError(text)
    return text


def _read_split(text: str) -> tuple[tuple[str, int], ...]:
    pairs: list[Any] = [pair.split("=") for pair in text.split(",")]
    shares = {version: int(share) for version, share in pairs if VERSION.fullmatch(version) and share.isdecimal()}
    if len(shares) != len(pairs) or sum(shares.values()) != 100:
        raise ValueError(text)
    return tuple(sorted(shares.items()))


ALGORITHM = _choose(*BALANCE_ALGORITHMS, HASH, allowed="one of " + ", ".join((*BALANCE_ALGORITHMS, HASH)))
BACKUPS = _choose("first", "all")
HASH_KEY = Kind("source, path, uri, header:NAME or cookie:NAME", _read_hash_key)
PROTOCOL = _choose("h1", "h2")
SPLIT = Kind("a table of versions and their shares, whole numbers that sum to 100, like {v1 = 95, v2 = 5}", _read_split)
HEALTH = _choose("http", "tcp", *PROTOCOL_CHECKS)
HEALTH_USER = Kind("up to 32 letters, digits, dashes and underscores", _read_user)
TLS_NAME = Kind("a host name", _read_host)
TRUTH = Kind("true or false", {"True": True, "False": False}.__getitem__)


def write_fetch(hash_key: str) -> str:
    """Return HAProxy's sample fetch for a hash key, "" for none."""
    found = _NAMED.fullmatch(hash_key)
    return f"req.{'hdr' if found[1] == 'header' else 'cook'}({found[2]})" if found else _FETCHES.get(hash_key, "")
