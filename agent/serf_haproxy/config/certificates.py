"""Certificates: what HAProxy can use of a PEM file, and the lines for a crt-list and the runtime socket. Pure.

A copy of each file is what HAProxy loads. The name of the copy has a digest of its content, so the names that HAProxy
reports tell which contents it has.
"""

import base64
import binascii
import calendar
import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

FILE_BYTES = 65536
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.pem", re.ASCII)

_COPY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.[0-9a-f]{16}\.pem", re.ASCII)
_USED_BYTES = 15000  # HAProxy's command line takes 16384 bytes at once (tune.bufsize)
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----(.*?)-----END \1-----", re.DOTALL)
_CERTIFICATE = "CERTIFICATE"
_KEYS = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")
_ENCRYPTED = "ENCRYPTED PRIVATE KEY"
_USED = (_CERTIFICATE, *_KEYS, "EC PARAMETERS", "DH PARAMETERS")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18  # tags of ASN.1
_TIME = re.compile(rb"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z")


class Certificate(NamedTuple):
    """A certificate with its chain and private key.

    Attributes:
        pem: What HAProxy gets: the blocks of the file, without the text between them.
        from_s: When it begins to be valid, seconds since the epoch.
        until_s: When it ends.
        digest: Of `pem`.
    """

    pem: str
    from_s: float
    until_s: float
    digest: str

    def name_copy(self, name: str) -> str:
        """Return the name of the copy of a file with this content."""
        return f"{name.removesuffix('.pem')}.{self.digest}.pem"


def read_certificate(text: str) -> Certificate:
    """Return the certificate in the text of a file.

    Raises:
        ValueError: HAProxy cannot use it; the text says why and what to do, and shows nothing of the file.
    """
    blocks = [(label, "".join(body.split())) for label, body in _BLOCK.findall(text)]
    labels = [label for label, _ in blocks]
    if _CERTIFICATE not in labels:
        raise ValueError("it has no certificate in PEM format; write the certificate, its chain and its key into it")
    if _ENCRYPTED in labels or "Proc-Type:4,ENCRYPTED" in text.replace(" ", ""):
        raise ValueError("its private key has a passphrase, which HAProxy cannot ask for; remove it: `openssl pkey`")
    count = sum(label in _KEYS for label in labels)
    if count != 1:
        what = "no private key; append the key" if not count else f"{count} private keys; leave one"
        raise ValueError(f"it has {what} of its first certificate")
    used = [(label, body) for label, body in blocks if label in _USED]
    if not all(_BASE64.fullmatch(body) for _, body in used):
        raise ValueError("it is damaged: a block is not base64; write it again")
    pem = "".join(map(_format_block, used))
    if len(pem) > _USED_BYTES:
        remedy = "leave out the root certificate, and what else does not belong to the chain"
        raise ValueError(f"it has more than {_USED_BYTES} bytes, which HAProxy does not take at run time; {remedy}")
    try:
        leaf = base64.b64decode(next(body for label, body in used if label == _CERTIFICATE), validate=True)
        return Certificate(pem, *_read_validity(leaf), hashlib.sha256(pem.encode()).hexdigest()[:16])
    except (binascii.Error, ValueError, IndexError) as error:
        raise ValueError("its first certificate cannot be read; write it again") from error


def is_copy(name: str) -> bool:
    """Return whether a name is that of a copy."""
    return _COPY.fullmatch(name) is not None


def find_original(copy: str) -> str:
    """Return the name of the file that a copy is of."""
    return f"{copy.rsplit('.', 2)[0]}.pem"


def format_list(directory: str, copies: Iterable[str]) -> str:
    """Return the text of a crt-list with these copies in a directory."""
    return "".join(f"{directory}/{copy}\n" for copy in sorted(copies))


def parse_list(text: str) -> frozenset[str]:
    """Return the copies in a crt-list, as the file or the runtime socket has it."""
    names = (line.rpartition("/")[2] for line in text.splitlines() if line.startswith("/"))
    return frozenset(name for name in names if is_copy(name))


def list_additions(list_path: str, path: str, pem: str) -> tuple[str, str]:
    """Return two commands that add a certificate at run time; after each the connection has to be closed."""
    return (
        f"new ssl cert {path}; set ssl cert {path} <<\n{pem}",
        f"commit ssl cert {path}; add ssl crt-list {list_path} {path}",
    )


def list_removals(list_path: str, path: str) -> str:
    """Return the commands that remove a certificate at run time."""
    return f"del ssl crt-list {list_path} {path}; del ssl cert {path}"


def _format_block(block: tuple[str, str]) -> str:
    label, body = block
    lines = "".join(f"{body[start : start + 64]}\n" for start in range(0, len(body), 64))
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n"


def _read_validity(der: bytes) -> tuple[float, float]:
    """Return from when until when a certificate is valid (RFC 5280, section 4.1); raise ValueError or IndexError.

    Python's ssl tells the dates only of a peer's or an authority's certificate.
    """
    at, _ = _enter(der, 0)
    at, _ = _enter(der, at)  # the part that is signed
    if der[at] == _VERSION:
        at = _skip(der, at)
    for _ in range(3):  # serial number, algorithm, issuer
        at = _skip(der, at)
    at, _ = _enter(der, at)
    return _read_time(der, at), _read_time(der, _skip(der, at))


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
    if not 1 <= day <= calendar.monthrange(year, month)[1] or hour > 23 or minute > 59 or second > 59:
        raise ValueError(at)
    return float(calendar.timegm((year, month, day, hour, minute, second)))
