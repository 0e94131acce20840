"""Certificates: what HAProxy can use of a PEM file, and the lines for a crt-list and the runtime socket. Pure.

A copy of each file is what HAProxy loads. The name of the copy has a digest of its content, so the names that HAProxy
reports tell which contents it has. Of several certificates for one host HAProxy uses the one that was loaded first, so
the name of a copy also tells after which others it was loaded.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from serf_haproxy.config.x509 import Place, read_places, read_validity

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


class Certificate(NamedTuple):
    """A certificate with its chain and private key.

    Attributes:
        pem: What HAProxy gets: the blocks of the file, without the text between them.
        from_s: When it begins to be valid, seconds since the epoch.
        until_s: When it ends.
        digest: Of `pem`.
        places: The kind of its key with each host that it names: where it competes with others. Empty where they cannot
            be read.
    """

    pem: str
    from_s: float
    until_s: float
    digest: str
    places: frozenset[Place]

    def name_copy(self, name: str, leaders: Iterable[str] = ()) -> str:
        """Return the name of the copy of a file with this content, loaded after the copies `leaders`."""
        known = "\n".join((self.digest, *sorted(leaders)))
        digest = _digest(known) if known != self.digest else self.digest
        return f"{name.removesuffix('.pem')}.{digest}.pem"


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
        return Certificate(pem, *read_validity(leaf), _digest(pem), read_places(leaf))
    except (binascii.Error, ValueError, IndexError) as error:
        raise ValueError("its first certificate cannot be read; write it again") from error


def name_copies(certificates: Mapping[str, Certificate]) -> dict[str, str]:
    """Return the name of the copy of each file.

    Where a file names a host of an earlier one, its copy is named after that copy too. So a renewal of the earlier one
    has both loaded anew, in their order; otherwise the later one would serve the host until HAProxy starts again.
    """
    copies: dict[str, str] = {}
    last: dict[Place, str] = {}
    for name in sorted(certificates):
        one = certificates[name]
        copies[name] = one.name_copy(name, {last[place] for place in one.places if place in last})
        last |= dict.fromkeys(one.places, copies[name])
    return copies


def find_shared(certificates: Mapping[str, Certificate]) -> Iterator[tuple[str, str, str]]:
    """Yield for each file that names a host of an earlier one: the file, the first such host, and the earliest file."""
    first: dict[Place, str] = {}
    for name in sorted(certificates):
        places = certificates[name].places
        if shared := sorted(place[::-1] for place in places if place in first):
            yield name, shared[0][0], first[shared[0][::-1]]
        for place in places:
            first.setdefault(place, name)


def is_copy(name: str) -> bool:
    """Return whether a name is that of a copy."""
    return _COPY.fullmatch(name) is not None


def find_original(copy: str) -> str:
    """Return the name of the file that a copy is of."""
    return f"{copy.rsplit('.', 2)[0]}.pem"


def format_list(directory: str, copies: Iterable[str]) -> str:
    """Return the text of a crt-list with these copies in a directory."""
    return "".join(f"{directory}/{copy}\n" for copy in sort_copies(copies))


def sort_copies(copies: Iterable[str]) -> list[str]:
    """Return copies in the order of their files, in which HAProxy loads them: the first one for a host counts."""
    return sorted(copies, key=lambda copy: (find_original(copy), copy))


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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
