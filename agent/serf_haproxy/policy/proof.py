"""The proof of belonging: a tag that only a holder of the shared secret can make. Pure, and imports no module of ours.

Any sender of gossip may claim anything for itself and repeat what others say. A proof shows that a holder of the secret
has agreed to exactly this server:

    proof=v1.9fCk0mJYwTgTqV0e4n2d1Q

The value is `v1.` and 128 bits of HMAC-SHA256 in base64url: 22 characters, since Serf gives all tags together 512
bytes. The signed message is a sequence of fields, each behind its length in four bytes, so that no byte can move from
one field to the next:

    "serf-haproxy proof v1", name, address, then key and value of each signed tag that the member has, sorted by key

For a tag `svc.NAME` the tag is `proof.NAME`, and the signed tags are `addr`, `role` and `svc.NAME`, of which weight and
drain are left out. So each service has a proof of its own, which a secret of its own may make.

The address is in normal form. A proof that is copied to another name, address, port or role fails. Copied together with
all of them it states what is true anyway. It has no date: to exclude a node for ever, change the secret.

`weight` and `drain` are not signed. Operators change them on running nodes, where the secret need not be, and a forger
gains nothing new by them: a sender of gossip that speaks for other members can also announce that they have left.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

PROOF_TAG = "proof"
SIGNED_TAGS = ("addr", "port", "role")  # each tag that decides where requests go; the absence of one is signed too
SECRET_CHARACTERS = 16

_ADDRESS_TAG = "addr"
_OFFERED = (_ADDRESS_TAG, "role")  # those that are signed beside a tag svc.NAME
_PLAIN = r"[A-Za-z0-9_.-]*"
_ADDRESS = r"[0-9A-Fa-f.:]*"
_VERSION = "v1"
_DOMAIN = f"serf-haproxy proof {_VERSION}"
_PROOF_BYTES = 16
_REMEDY = "give it the tag that 'serf-haproxy proof' prints"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Secret:
    """A shared secret that no log, traceback or comparison of settings prints."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def sign(self, message: bytes) -> str:
        """Return the proof for a message."""
        mac = hmac.digest(self._key, message, hashlib.sha256)[:_PROOF_BYTES]
        return f"{_VERSION}.{base64.urlsafe_b64encode(mac).decode('ascii').rstrip('=')}"

    def derive(self, purpose: str) -> str:
        """Return a key for one purpose, 32 hexadecimal digits: it tells nothing of the secret or of another key.

        No message of a proof begins with a purpose: it begins with the length of its first field.
        """
        return hmac.digest(self._key, purpose.encode("ascii"), hashlib.sha256)[:_PROOF_BYTES].hex()


class Offer(NamedTuple):
    """A service that a member offers by a tag of its own.

    Attributes:
        service: The service's name.
        tag: The tag.
        signed: What a proof covers of the tag's value.
    """

    service: str
    tag: str
    signed: str

    @property
    def proof_tag(self) -> str:
        """The tag that holds the proof."""
        return f"{PROOF_TAG}.{self.service}"


def make_proof(secret: Secret, name: str, address: str, tags: Mapping[str, str], offer: Offer | None = None) -> str:
    """Return the value of the tag `proof` for a member, or of the tag `proof.NAME` for its place in a service.

    Args:
        secret: The shared secret: while it is being changed, the one that all balancers know.
        name: The node's name.
        address: The IP address under which Serf's members see the node, in any form.
        tags: The node's tags; only those in `SIGNED_TAGS` count.
        offer: What it offers, and the proof is for; None for the short form of the default service.

    Raises:
        ValueError: The address is not an IP address, or a signed tag has a character that Serf's events make ambiguous.
    """
    for key in SIGNED_TAGS:
        if key == _ADDRESS_TAG and not re.fullmatch(_ADDRESS, tags.get(key, ""), re.ASCII):
            raise ValueError(f"tag {key}={tags[key]!a}: a proof allows only an IP address")
        if key != _ADDRESS_TAG and not re.fullmatch(_PLAIN, tags.get(key, ""), re.ASCII):
            raise ValueError(f"tag {key}={tags[key]!a}: a proof allows only letters, digits, dot, dash and underscore")
    return secret.sign(_message(name, str(normalise(address)), tags, offer))


def check_proof(
    secrets: Iterable[Secret], name: str, address: str, tags: Mapping[str, str], offer: Offer | None = None
) -> None:
    """Return when one of the secrets made the member's proof for this name, address and tags.

    Args:
        secrets: The secrets; more than one while they are being changed.
        name: The node's name.
        address: Its IP address in normal form.
        tags: Its tags.
        offer: What it offers; None for the short form of the default service.

    Raises:
        ValueError: There is no proof, or it was made for another member or with another secret.
    """
    tag = offer.proof_tag if offer else PROOF_TAG
    said = tags.get(tag)
    if not said:
        raise ValueError(f"it has no tag {tag}; {_REMEDY}")
    version = said.partition(".")[0]
    if version != _VERSION:
        raise ValueError(f"its tag {tag} is of version {version[:10]!a}, not {_VERSION}; {_REMEDY}")
    message = _message(name, address, tags, offer)
    said_bytes = said.encode("utf-8", "surrogatepass")
    # Texts are compared, not what they decode to: base64 has several texts for the same bytes.
    if not any(hmac.compare_digest(said_bytes, secret.sign(message).encode("ascii")) for secret in secrets):
        signed = ", ".join(("name", "address", *((*_OFFERED, offer.tag) if offer else SIGNED_TAGS)))
        raise ValueError(f"its tag {tag} was made for another {signed} or with another secret; {_REMEDY}")


def normalise(address: str) -> Address:
    """Parse an IP address; an IPv4-mapped IPv6 address becomes the IPv4 address."""
    read = ipaddress.ip_address(address)
    return getattr(read, "ipv4_mapped", None) or read


def read_secrets(text: str) -> tuple[Secret, ...]:
    """Return the secrets of a file: one on each line, the first for making proofs, all for checking them.

    Raises:
        ValueError: There is no secret, or one is too short. The text does not repeat it.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines or any(len(line) < SECRET_CHARACTERS for line in lines):
        raise ValueError(f"must have one secret of {SECRET_CHARACTERS} or more characters on each line")
    return tuple(Secret(line.encode("utf-8", "surrogateescape")) for line in lines)


def pack_fields(fields: Iterable[bytes]) -> bytes:
    """Return a message to sign: each field behind its length in four bytes, so that no byte can move to another one."""
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def _message(name: str, address: str, tags: Mapping[str, str], offer: Offer | None) -> bytes:
    fields = [_DOMAIN, name, address]
    for key in _OFFERED if offer else SIGNED_TAGS:
        if key in tags:
            fields += [key, tags[key]]
    fields += [offer.tag, offer.signed] if offer else []
    return pack_fields(field.encode("utf-8", "surrogatepass") for field in fields)
