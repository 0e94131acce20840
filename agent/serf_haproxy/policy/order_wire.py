"""Orders on their way between balancers: bytes, signed and dated. Pure.

A message is a signature, a space, and a body that the signature covers:

    v1.9fCk0mJYwTgTqV0e4n2d1Q [1,"order","lb1",1795662000000,[["maint","","web1","drain",...]]]

The signature is that of `policy.proof` under a shared secret, over a name of its own and the body; "-" where nothing
signs. The body is JSON without blanks: the version, the kind, who has sent it, when (milliseconds since the epoch),
and orders. Of a page with all orders of a balancer (kind "page"), its number, the number of pages and the digest of
them all follow. The date bounds how long a copy of a message is good for: what it says cannot
undo what was ordered after it, since each order has its own time.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from serf_haproxy.policy.orders import FORMS, MOST, Order
from serf_haproxy.policy.proof import Secret, pack_fields
from serf_haproxy.serf.events import NAME_BYTES, name_fault
from serf_haproxy.services import NAME

FRESH_MS = 300 * 1000  # clocks of balancers differ by less, and a message is on its way for seconds
EVENT_BYTES = 440  # Serf allows 512 for an event with its name and all that it adds
PAGE_BYTES = 880  # of the 1024 bytes of an answer, Serf needs some for itself
PAGES = MOST
TEXT_CHARACTERS = 200  # of an author or a reason; fewer where names are long

ORDER, PAGE = "order", "page"
_VERSION = 1
_DOMAIN = b"serf-haproxy orders v1"
_UNSIGNED = "-"
LAST_MS = 4_102_444_800_000  # the year 2100


class Message(NamedTuple):
    """A message between balancers.

    Attributes:
        kind: ORDER or PAGE.
        sender: The balancer that sent it, by its node name.
        sent_ms: When, milliseconds since the epoch.
        orders: The orders.
        page: The number of the page, from 0.
        page_count: How many pages there are.
        digest: The digest of all orders of the sender.
    """

    kind: str
    sender: str
    sent_ms: int
    orders: tuple[Order, ...]
    page: int = 0
    page_count: int = 1
    digest: str = ""


def encode(message: Message, secrets: Sequence[Secret]) -> bytes:
    """Return the bytes of a message, signed with the first secret, or unsigned without any."""
    orders = [list(order[:-1]) for order in message.orders]
    fields: list[Any] = [_VERSION, message.kind, message.sender, message.sent_ms, orders]
    fields += [message.page, message.page_count, message.digest] if message.kind == PAGE else []
    body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return _sign(secrets[0], body).encode("ascii") + b" " + body if secrets else b"- " + body


def decode(data: bytes, secrets: Sequence[Secret], now_ms: int) -> Message:
    """Return a message from its bytes.

    Args:
        data: What came over the network.
        secrets: One of them must have signed it; none: it must be unsigned, and anything may have sent it.
        now_ms: The time, milliseconds since the epoch.

    Raises:
        ValueError: It is not signed by one of the secrets, too old, or malformed; the text says which.
    """
    said, _, body = data.partition(b" ")
    if secrets:
        signatures = [_sign(secret, body).encode("ascii") for secret in secrets]
        if not any(hmac.compare_digest(said, signature) for signature in signatures):
            raise ValueError("it is signed with another secret, or not at all")
    elif said != _UNSIGNED.encode("ascii"):
        raise ValueError("it is signed, and this balancer has no secret; name one with SERF_HAPROXY_ORDERS_SECRET_FILE")
    try:
        message = _read(json.loads(body.decode("utf-8")))
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        raise ValueError("it is not a message of this version") from error
    if abs(message.sent_ms - now_ms) > FRESH_MS:
        age_s = (now_ms - message.sent_ms) / 1e3
        raise ValueError(f"it was sent {age_s:.0f} s ago, by its own date; older copies do not count, see the clocks")
    if any(order.at_ms > message.sent_ms + FRESH_MS for order in message.orders):
        raise ValueError("it has an order from the future; see the clocks of the balancers")
    return message


def make_pages(sender: str, orders: Iterable[Order], sent_ms: int, secrets: Sequence[Secret]) -> list[bytes]:
    """Return all orders as pages, each small enough for an answer to a query; one empty page where there are none."""
    listed = sorted(orders)
    digest = digest_orders(listed)
    groups: list[list[Order]] = [[]]
    for order in listed:
        trial = Message(PAGE, sender, sent_ms, (*groups[-1], order), PAGES, PAGES, digest)
        if groups[-1] and len(encode(trial, secrets)) > PAGE_BYTES:
            groups.append([])
        groups[-1].append(order)
    groups = groups[:PAGES]
    return [
        encode(Message(PAGE, sender, sent_ms, tuple(group), number, len(groups), digest), secrets)
        for number, group in enumerate(groups)
    ]


def digest_orders(orders: Iterable[Order]) -> str:
    """Return a short digest of orders: balancers with the same one know the same."""
    text = json.dumps(sorted(order[:-1] for order in orders), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def read_order(fields: Any, is_local: bool = False) -> Order:
    """Return an order from its fields.

    Raises:
        ValueError: One of them is not what it should be; the text says which.
        TypeError: They are not a list of fields.
    """
    verb, service, node, mode, at_ms, issuer, until_ms, author, reason = fields
    order = Order(verb, service, node, mode, at_ms, issuer, until_ms, author, reason, is_local)
    texts = (verb, service, node, mode, issuer, author, reason)
    if not all(isinstance(text, str) for text in texts) or not all(type(time) is int for time in (at_ms, until_ms)):
        raise TypeError("a field has another type than it should")
    if (verb, mode) not in FORMS:
        raise ValueError(f"there is no order {verb!a} with {mode!a}")
    if service and not NAME.fullmatch(service):
        raise ValueError(f"{service!a} is no name of a service")
    if (fault := name_fault(node) if node or verb == "maint" else None) is not None:
        raise ValueError(f"{node!a} is no name of a node: {fault}")
    if not 0 < at_ms <= LAST_MS or not 0 <= until_ms <= LAST_MS or len(issuer) > NAME_BYTES:
        raise ValueError("its time is out of range, which ends with the year 2099, or the balancer's name is too long")
    for what, text in (("name of the balancer", issuer), ("name of who orders", author), ("reason", reason)):
        if len(text) > TEXT_CHARACTERS:
            raise ValueError(f"the {what} is too long: it has {len(text)} characters, {TEXT_CHARACTERS} are allowed")
        if not text.isprintable():
            raise ValueError(f"the {what} has a character that cannot be printed: {text[:20]!a}")
    return order


def find_excess(order: Order, secrets: Sequence[Secret]) -> int:
    """Return by how many bytes an order is too long for an event of Serf; 0 where it fits."""
    return max(0, len(encode(Message(ORDER, order.issuer, LAST_MS, (order,)), secrets)) - EVENT_BYTES)


def _read(fields: Any) -> Message:
    version, kind, sender, sent_ms, orders, *more = fields
    if version != _VERSION or kind not in (ORDER, PAGE) or len(more) != (3 if kind == PAGE else 0):
        raise ValueError(kind)
    if not isinstance(sender, str) or type(sent_ms) is not int or not isinstance(orders, list):
        raise TypeError(sender)
    message = Message(kind, sender, sent_ms, tuple(map(read_order, orders)))
    if not more:
        return message
    page, page_count, digest = more
    if type(page) is not int or type(page_count) is not int or not isinstance(digest, str):
        raise TypeError(digest)
    if not 0 <= page < page_count <= PAGES:
        raise ValueError(page)
    return message._replace(page=page, page_count=page_count, digest=digest)


def _sign(secret: Secret, body: bytes) -> str:
    return secret.sign(pack_fields((_DOMAIN, body)))
