"""What is read of a certificate in DER form (RFC 5280): how long it is valid, and for which hosts. Pure.

Python's ssl tells that only of a peer's or an authority's certificate.
"""

import calendar
import re
from collections.abc import Iterator

Place = tuple[bytes, str]
"""The kind of a key, as an object identifier in DER form, and a host in lower case, which may begin with `*.`."""

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18  # tags of ASN.1
_EXTENSIONS, _DNS_NAME = 0xA3, 0x82
_ALTERNATIVE_NAMES, _COMMON_NAME = b"\x55\x1d\x11", b"\x55\x04\x03"  # 2.5.29.17, 2.5.4.3
_TIME = re.compile(rb"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z")


def read_validity(der: bytes) -> tuple[float, float]:
    """Return from when until when a certificate is valid (section 4.1); raise ValueError or IndexError."""
    at, _ = _enter(der, 0)
    at, _ = _enter(der, at)  # the part that is signed
    if der[at] == _VERSION:
        at = _skip(der, at)
    for _ in range(3):  # serial number, algorithm, issuer
        at = _skip(der, at)
    at, _ = _enter(der, at)
    return _read_time(der, at), _read_time(der, _skip(der, at))


def read_places(der: bytes) -> frozenset[Place]:
    """Return the kind of the key with each host for which HAProxy uses a certificate: alternative and common names.

    HAProxy decides what it loads, so a certificate whose names cannot be read has none here.
    """
    try:
        at, _ = _enter(der, 0)
        parts = [part for part in _split(der, *_enter(der, at)) if part[0] != _VERSION]
        _, _, _, _, subject, key = parts[:6]  # after serial number, algorithm, issuer, validity
        algorithm = next(_split(der, *key[1:]))
        kind = next(_split(der, *algorithm[1:]))
        names = []
        for _, start, end in _split(der, *subject[1:]):
            for _, *pair in _split(der, start, end):
                what, value = _split(der, *pair)
                names += [value] if der[what[1] : what[2]] == _COMMON_NAME else []
        for _, start, _ in (part for part in parts[6:] if part[0] == _EXTENSIONS):
            for _, *extension in _split(der, *_measure(der, start)):
                what, *_, value = _split(der, *extension)
                if der[what[1] : what[2]] == _ALTERNATIVE_NAMES:
                    names += [name for name in _split(der, *_measure(der, value[1])) if name[0] == _DNS_NAME]
        hosts = [der[start:end].decode("utf-8", "replace").lower() for _, start, end in names]
        return frozenset((der[kind[1] : kind[2]], host) for host in hosts)
    except (ValueError, IndexError, StopIteration):
        return frozenset()


def _split(der: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the tag of each element in a part, and where its content begins and ends."""
    while start < end:
        tag = der[start]
        inner, start = _measure(der, start)
        yield tag, inner, start


def _enter(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of a sequence begins and ends."""
    if der[at] != _SEQUENCE:
        raise ValueError(at)
    return _measure(der, at)


def _skip(der: bytes, at: int) -> int:
    return _measure(der, at)[1]


def _measure(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of an element begins and ends."""
    size, start = der[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, start = int.from_bytes(der[start : start + count]), start + count
    if start + size > len(der):
        raise ValueError(at)
    return start, start + size


def _read_time(der: bytes, at: int) -> float:
    start, end = _measure(der, at)
    text = der[start:end]
    if der[at] == _UTC_TIME:
        text = (b"20" if text[:2] < b"50" else b"19") + text
    found = _TIME.fullmatch(text)
    if not found or der[at] not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError(at)
    year, month, day, hour, minute, second = map(int, found.groups())
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        raise ValueError(at)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(at)
    return float(calendar.timegm((year, month, day, hour, minute, second)))
