"""Answers of a balancer to queries of Serf: a text, signed and dated. Pure.

    nodes draining 10.1.0.11:8080 weight 0: an order drains it: disk swap
    -- v1.tA0jjqAaJofY-3qDr86hvw 1795667700321

The last line has the signature, or "unsigned" where nothing signs, and when the answer was made, milliseconds since the
epoch. The signature is that of `policy.proof` under a shared secret, over a name of its own, the query, what it asks
about, the balancer, the date and the text. So an answer proves nothing for another query or balancer, and
nothing when it is old. The daemon signs ahead of the query: the handler that answers knows no secret.
"""

import hmac
from collections.abc import Sequence
from typing import NamedTuple

from serf_haproxy.policy.order_wire import FRESH_MS
from serf_haproxy.policy.proof import Secret, pack_fields
from serf_haproxy.serf.answers import MOST_BYTES

UNSIGNED = "unsigned"

_DOMAIN = "serf-haproxy answer v1"
_MARK = "\n-- "
_CUT = b"..."
_TEXT_BYTES = MOST_BYTES - 50  # the last line has 44 at most


class Question(NamedTuple):
    """What a balancer is asked.

    Attributes:
        query: The name of the query.
        subject: What it asks about, such as a node; "" for the balancer.
        balancer: The balancer that answers, by its node name.
    """

    query: str
    subject: str
    balancer: str


class Said(NamedTuple):
    """An answer.

    Attributes:
        text: What it says.
        sent_ms: When it was made, milliseconds since the epoch by the clock of the balancer.
    """

    text: str
    sent_ms: int


def encode(question: Question, text: str, sent_ms: int, secrets: Sequence[Secret]) -> str:
    """Return an answer, signed with the first secret, or unsigned without any.

    Args:
        question: What is answered.
        text: What is said; a text that is too long for Serf is cut, and ends with "...".
        sent_ms: The time, milliseconds since the epoch.
        secrets: The secrets of the balancers.
    """
    said = text.rstrip("\n").encode("utf-8", "replace")
    if len(said) > _TEXT_BYTES:
        said = said[: _TEXT_BYTES - len(_CUT)] + _CUT
    text = said.decode("utf-8", "ignore")
    signature = secrets[0].sign(_pack(question, text, str(sent_ms))) if secrets else UNSIGNED
    return f"{text}{_MARK}{signature} {sent_ms}"


def decode(data: bytes, question: Question, secrets: Sequence[Secret], now_ms: int, fresh_ms: int = FRESH_MS) -> Said:
    """Return an answer from its bytes.

    Args:
        data: What came over the network.
        question: What was asked, and of which balancer.
        secrets: One of them must have signed it; none: it must be unsigned, and anything may have sent it.
        now_ms: The time, milliseconds since the epoch.
        fresh_ms: How far its date may be from that.

    Raises:
        ValueError: It is not signed by one of the secrets, too old, or malformed; the text says which.
    """
    try:
        text, mark, last = data.decode("utf-8").rstrip("\n").rpartition(_MARK)
        signature, date = last.split(" ")
        sent_ms = int(date) if date.isascii() and date.isdecimal() and len(date) < 16 else -1
    except ValueError:
        mark = signature = text = date = ""
        sent_ms = -1
    if not mark or sent_ms < 0:
        raise ValueError("it has no signature and date in its last line")
    packed = _pack(question, text, date)
    if secrets:
        said = signature.encode("utf-8")
        if not any(hmac.compare_digest(said, secret.sign(packed).encode("ascii")) for secret in secrets):
            raise ValueError("it is signed with another secret, for another question, or not at all")
    elif signature != UNSIGNED:
        raise ValueError("it is signed, and this balancer has no secret; name one with SERF_HAPROXY_ORDERS_SECRET_FILE")
    if abs(now_ms - sent_ms) > fresh_ms:
        raise ValueError(f"it was made {(now_ms - sent_ms) / 1e3:.0f} s ago, by its own date; see the clocks")
    return Said(text, sent_ms)


def _pack(question: Question, text: str, date: str) -> bytes:
    fields = (_DOMAIN, question.query, question.subject, question.balancer, date, text)
    return pack_fields(field.encode("utf-8", "replace") for field in fields)
