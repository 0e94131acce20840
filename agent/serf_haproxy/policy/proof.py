"""What a member may claim: its address, its port, and that it belongs to us. Pure, and without any module of ours.

Whoever reaches the gossip may say anything of himself, and repeat what others say. So policy limits where a server may
be, and a proof of belonging shows that whoever holds the shared secret has agreed to this very server. It is a tag:

    proof=v1.9fCk0mJYwTgTqV0e4n2d1Q

that is `v1.` and 128 bits of HMAC-SHA256 in base64url: 22 characters, for Serf gives all tags together 512 bytes. What
is signed is a sequence of fields, each behind its length in four bytes, so that no byte can move from one to the next:

    "serf-haproxy proof v1", name, address, then key and value of each signed tag that the member has, sorted by key

The address is in normal form. A proof copied to another name, address, port or role fails. Copied with all of them it
says what is true anyway. It has no date: who may not come back is kept out by a new secret.

Not signed are `weight` and `drain`. Operators change them on running nodes, where the secret need not be, and a forger
gains nothing by them that he has not already: who can speak for others in the gossip can also say that they have left.
"""

import base64
import functools
import hashlib
import hmac
import ipaddress
import re
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

PROOF_TAG = "proof"
SIGNED_TAGS = ("port", "role")  # each tag that decides where requests go; the absence of one is signed too
SECRET_CHARACTERS = 16

_VERSION = "v1"
_DOMAIN = f"serf-haproxy proof {_VERSION}"
_PROOF_BYTES = 16
_REMEDY = "give it the tag that 'serf-haproxy proof' prints"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Secret:
    """A shared secret that no log, traceback or comparison of settings can print."""

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


class Claim(NamedTuple):
    """What a member says of itself.

    Attributes:
        name: The node's name.
        address: An IP address in normal form.
        port: The port that its server would have.
        tags: All tags; the signed ones are read as they were said.
    """

    name: str
    address: str
    port: int
    tags: Mapping[str, str]


class Policy(NamedTuple):
    """What members may claim.

    Attributes:
        networks: Where servers may be; empty means anywhere.
        ports: First and last port of each range that servers may have; empty means all.
        secrets: Each of them makes a valid proof; empty means that none is needed.
    """

    networks: tuple[Network, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    secrets: tuple[Secret, ...] = ()


def check_claim(policy: Policy, claim: Claim) -> None:
    """Let a claim pass that policy allows.

    Raises:
        ValueError: It does not; the text is printable and says what is wrong and where to mend it.
    """
    check_place(policy, claim.address, claim.port)
    if policy.secrets:
        check_proof(policy.secrets, claim.name, claim.address, claim.tags)


def check_place(policy: Policy, address: str, port: int) -> None:
    """Let an address in normal form and a port pass where servers may be.

    Raises:
        ValueError: They may not be there; the text says which of the two and where to mend it.
    """
    if policy.networks and not any(_read_address(address) in network for network in policy.networks):
        raise ValueError(f"address {address} is in none of the networks that SERF_HAPROXY_NETWORKS allows")
    if policy.ports and not any(low <= port <= high for low, high in policy.ports):
        raise ValueError(f"port {port} is in none of the ranges that SERF_HAPROXY_PORTS allows")


def make_proof(secret: Secret, name: str, address: str, tags: Mapping[str, str]) -> str:
    """Return the value of the tag `proof` for a member.

    Args:
        secret: The shared secret; of several the one that all balancers know.
        name: The node's name.
        address: The IP address under which Serf's members see the node, in any form.
        tags: The node's tags; only those in `SIGNED_TAGS` count.

    Raises:
        ValueError: The address is none, or Serf's handlers could not tell a signed tag from others.
    """
    for key in SIGNED_TAGS:
        if not re.fullmatch(r"[A-Za-z0-9_.-]*", tags.get(key, ""), re.ASCII):
            raise ValueError(f"tag {key}={tags[key]!a}: a proof takes letters, digits, dot, dash and underscore alone")
    return secret.sign(_message(name, str(normalise(address)), tags))


def check_proof(secrets: Iterable[Secret], name: str, address: str, tags: Mapping[str, str]) -> None:
    """Let a member pass whose proof one of the secrets made for this name, address and these tags.

    Args:
        secrets: The secrets; more than one while they are being changed.
        name: The node's name.
        address: Its IP address in normal form.
        tags: Its tags.

    Raises:
        ValueError: There is no proof, or it was made for something else.
    """
    said = tags.get(PROOF_TAG)
    if not said:
        raise ValueError(f"it has no tag {PROOF_TAG} to show that it belongs here; {_REMEDY}")
    version = said.partition(".")[0]
    if version != _VERSION:
        raise ValueError(f"its tag {PROOF_TAG} is of version {version[:10]!a}, not {_VERSION}; {_REMEDY}")
    message = _message(name, address, tags)
    said_bytes = said.encode("utf-8", "surrogatepass")
    # Texts are compared, not what they decode to: base64 has several texts for the same bytes.
    if not any(hmac.compare_digest(said_bytes, secret.sign(message).encode("ascii")) for secret in secrets):
        signed = ", ".join(("name", "address", *SIGNED_TAGS))
        raise ValueError(f"its tag {PROOF_TAG} was made for another {signed} or with another secret; {_REMEDY}")


def normalise(address: str) -> Address:
    """Read an IP address; one of IPv4 that is written as IPv6 is one of IPv4."""
    read = ipaddress.ip_address(address)
    return getattr(read, "ipv4_mapped", None) or read


def read_secrets(text: str) -> tuple[Secret, ...]:
    """Read a file of secrets: one on each line, the first for making proofs, all for checking them.

    Raises:
        ValueError: There is none, or one is too short. The text does not repeat it.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines or any(len(line) < SECRET_CHARACTERS for line in lines):
        raise ValueError(f"must have one secret of {SECRET_CHARACTERS} or more characters on each line")
    return tuple(Secret(line.encode("utf-8", "surrogateescape")) for line in lines)


def _message(name: str, address: str, tags: Mapping[str, str]) -> bytes:
    fields = [_DOMAIN, name, address]
    for key in SIGNED_TAGS:
        if key in tags:
            fields += [key, tags[key]]
    encoded = [field.encode("utf-8", "surrogatepass") for field in fields]
    return b"".join(struct.pack(">I", len(field)) + field for field in encoded)


@functools.lru_cache(maxsize=65536)  # most addresses of a pass were in the one before
def _read_address(text: str) -> Address:
    return ipaddress.ip_address(text)
