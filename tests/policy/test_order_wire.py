"""Messages between balancers: only what a holder of the secret has sent a moment ago counts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy import order_wire
from serf_haproxy.policy.order_wire import (
    EVENT_BYTES,
    FRESH_MS,
    ORDER,
    PAGE_BYTES,
    Message,
    decode,
    digest_orders,
    encode,
    find_excess,
    make_pages,
    read_order,
)
from serf_haproxy.policy.orders import DRAIN, MAINT, MOST, Order
from serf_haproxy.policy.proof import Secret

NOW_MS = 1_795_662_000_000
SECRET, OTHER = Secret(b"a secret of sixteen"), Secret(b"another secret of 16")
WEB1 = Order(MAINT, "", "web1", DRAIN, NOW_MS, "lb1", 0, "alice", "disk swäp")
MESSAGE = Message(ORDER, "lb1", NOW_MS, (WEB1,))


def test_a_message_comes_back_as_it_was() -> None:
    """What one balancer encodes, another one with the secret decodes, also while the secret is being replaced."""
    assert decode(encode(MESSAGE, (SECRET,)), (SECRET,), NOW_MS) == MESSAGE
    assert decode(encode(MESSAGE, (SECRET, OTHER)), (OTHER, SECRET), NOW_MS) == MESSAGE
    assert decode(encode(MESSAGE, ()), (), NOW_MS) == MESSAGE


@given(st.data())
def test_no_changed_byte_is_accepted(data: st.DataObject) -> None:
    """A message with one other byte, one more or one less is refused."""
    whole = encode(MESSAGE, (SECRET,))
    place = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.binary(max_size=2).filter(lambda some: some != whole[place : place + 1]))
    changed = whole[:place] + other + whole[place + 1 :]
    if changed == whole:
        return
    with pytest.raises(ValueError, match="it is "):
        decode(changed, (SECRET,), NOW_MS)


@given(st.binary(max_size=600))
def test_nothing_that_is_not_signed_is_read(data: bytes) -> None:
    """Any bytes without the right signature are refused."""
    with pytest.raises(ValueError, match="signed with another secret, or not at all"):
        decode(data, (SECRET,), NOW_MS)


@given(st.binary(max_size=600) | st.text(alphabet='[]{}",:0123456789', max_size=60).map(str.encode))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """Where nothing signs, or the holder of the secret sends nonsense, a body is a message or a ValueError."""
    for data, secrets in ((b"- " + body, ()), (order_wire._sign(SECRET, body).encode() + b" " + body, (SECRET,))):
        with pytest.raises(ValueError, match="it is not a message of this version"):
            decode(data, secrets, NOW_MS)


@pytest.mark.parametrize("age_ms", [FRESH_MS + 1, -FRESH_MS - 1, 86_400_000])
def test_an_old_copy_is_refused(age_ms: int) -> None:
    """A message that was sent long ago, or will be, is refused: a replay, or a clock that is wrong."""
    with pytest.raises(ValueError, match="it was sent .* s ago, by its own date"):
        decode(encode(MESSAGE, (SECRET,)), (SECRET,), NOW_MS + age_ms)


def test_signed_and_unsigned_do_not_mix() -> None:
    """A balancer with a secret takes no unsigned message, and one without takes no signed one."""
    with pytest.raises(ValueError, match="not at all"):
        decode(encode(MESSAGE, ()), (SECRET,), NOW_MS)
    with pytest.raises(ValueError, match="this balancer has no secret"):
        decode(encode(MESSAGE, (SECRET,)), (), NOW_MS)


def test_a_proof_is_no_signature_of_an_order() -> None:
    """What the secret signs for other purposes signs no order: the domain is in the message."""
    body = encode(MESSAGE, ()).partition(b" ")[2]
    with pytest.raises(ValueError, match="signed with another secret"):
        decode(SECRET.sign(body).encode() + b" " + body, (SECRET,), NOW_MS)


def test_an_order_from_the_future_is_refused() -> None:
    """A fresh message with an order that no other order could replace for years is refused."""
    message = MESSAGE._replace(orders=(WEB1._replace(at_ms=NOW_MS + 10 * FRESH_MS),))
    with pytest.raises(ValueError, match="from the future"):
        decode(encode(message, (SECRET,)), (SECRET,), NOW_MS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verb", "format"),
        ("mode", "on"),
        ("mode", 5),
        ("node", ""),
        ("node", "../x"),
        ("node", "web1;"),
        ("service", "Nodes"),
        ("service", "a b"),
        ("at_ms", 0),
        ("at_ms", True),
        ("at_ms", 1e3),
        ("until_ms", -1),
        ("until_ms", 2**63),
        ("reason", "two\nlines"),
        ("reason", "\x1b[2J"),
        ("reason", "x" * 201),
        ("author", None),
        ("issuer", "l" * 129),
    ],
)
def test_a_field_that_is_wrong_is_refused(field: str, value: object) -> None:
    """Each field of an order is checked, also of a signed one."""
    fields = list(WEB1._replace(**{field: value})[:-1])
    with pytest.raises((ValueError, TypeError)):
        read_order(fields)
    body = json.dumps([1, ORDER, "lb1", NOW_MS, [fields]]).encode()
    with pytest.raises(ValueError, match="not a message of this version"):
        decode(b"- " + body, (), NOW_MS)


def test_an_order_fits_an_event() -> None:
    """An order with the longest name and an ordinary reason fits; one that does not is found with its excess."""
    long = WEB1._replace(node="n" * 128, service="s" * 31, issuer="l" * 60)
    assert find_excess(long, (SECRET,)) == 0
    excess = find_excess(long._replace(reason="ä" * 150), (SECRET,))
    assert excess > 0
    assert len(encode(MESSAGE, (SECRET,))) <= EVENT_BYTES


def test_pages_hold_all_orders_within_the_limit_of_an_answer() -> None:
    """However many orders there are, each page is small, and all of them together have every order and one digest."""
    orders = [WEB1._replace(node=f"{number:0128d}") for number in range(MOST)]
    pages = [decode(page, (SECRET,), NOW_MS) for page in make_pages("lb1", orders, NOW_MS, (SECRET,))]
    assert all(len(page) <= PAGE_BYTES for page in make_pages("lb1", orders, NOW_MS, (SECRET,)))
    assert [order for page in pages for order in page.orders] == orders
    assert [(page.page, page.page_count) for page in pages] == [(number, len(pages)) for number in range(len(pages))]
    assert {page.digest for page in pages} == {digest_orders(reversed(orders))}
    assert len(make_pages("lb1", [], NOW_MS, (SECRET,))) == 1
