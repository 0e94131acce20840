"""Orders: how balancers come to the same table, which orders have effect, and what is kept."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy.orders import (
    DRAIN,
    FORMS,
    KEEP_MS,
    MAINT,
    MOST,
    ON,
    PAUSE,
    RELEASE,
    RELOAD,
    STOP,
    UNDONE,
    Order,
    explain,
    follow,
    list_active,
    merge,
    prune,
)

NOW_MS = 1_795_662_000_000
MINUTE = 60_000


def make(mode: str = DRAIN, at_ms: int = NOW_MS, verb: str = MAINT, node: str = "web1", **more: object) -> Order:
    return Order(verb, "", node, mode, at_ms, "lb1")._replace(**more)


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Return any order, with few subjects and few times, so that many are about the same."""
    verb, mode = draw(st.sampled_from(FORMS))
    node = draw(st.sampled_from(["web1", "web2"])) if verb in (MAINT, RELEASE) else ""
    service = draw(st.sampled_from(["", "api"])) if verb == MAINT else ""
    at_ms = NOW_MS + draw(st.integers(0, 3))
    until_ms = draw(st.sampled_from([0, NOW_MS + 1, NOW_MS + MINUTE]))
    author, reason = draw(st.sampled_from(["alice", "bob"])), draw(st.sampled_from(["", "disk"]))
    issuer, is_local = draw(st.sampled_from(["lb1", "lb2"])), draw(st.booleans())
    return Order(verb, service, node, mode, at_ms, issuer, until_ms, author, reason, is_local)


def table_of(*batches: list[Order]) -> set[Order]:
    """Return the orders that stand after batches have arrived."""
    table = {}
    for batch in batches:
        table = merge(table, batch, NOW_MS)
    return {one.order for one in table.values()}


@given(st.lists(orders()), st.lists(orders()), st.lists(orders()))
def test_balancers_agree_whatever_comes_when_and_how_often(a: list[Order], b: list[Order], c: list[Order]) -> None:
    """Merging is commutative, associative and idempotent."""
    expected = table_of(a, b, c)
    for batches in itertools.permutations([a, b, c]):
        assert table_of(*batches) == expected
        assert table_of(*batches, *reversed(batches)) == expected
    assert table_of(a + b + c) == table_of(list(reversed(a + b + c))) == expected


@given(st.lists(orders()), st.lists(orders()))
def test_a_table_is_news_only_once(a: list[Order], b: list[Order]) -> None:
    """What a balancer has, with the marks of what it sent, is not changed by hearing it again."""
    table = merge(merge({}, a, NOW_MS, is_sent=False), b, NOW_MS)
    assert merge(table, a + b, NOW_MS + 1) == table


@given(st.lists(orders()))
def test_pruning_keeps_what_has_effect(some: list[Order]) -> None:
    """At every time, pruning changes nothing of what is in effect then."""
    table = merge({}, some, NOW_MS)
    for later_ms in (0, 1, MINUTE, KEEP_MS - 1, KEEP_MS + 2 * MINUTE):
        now_ms = NOW_MS + later_ms
        kept = list_active(prune(table, now_ms), now_ms)
        active = list_active(table, now_ms)
        assert kept._replace(released_ns=0, released={}, reload=None) == active._replace(
            released_ns=0, released={}, reload=None
        )


def test_the_later_order_counts_until_it_is_undone_or_ends() -> None:
    """An order about a node counts until a later one, its mark, or its end."""
    drain, stop = make(until_ms=NOW_MS + MINUTE), make(STOP, NOW_MS + 1)
    undone = make(UNDONE, NOW_MS + 2)
    assert list_active(merge({}, [drain], NOW_MS), NOW_MS).find(("nodes", "web1")) == drain
    assert list_active(merge({}, [drain], NOW_MS), NOW_MS).ends_in_s == pytest.approx(60)
    assert list_active(merge({}, [drain], NOW_MS), NOW_MS + MINUTE).find(("nodes", "web1")) is None
    assert list_active(merge({}, [stop, drain], NOW_MS), NOW_MS).find(("nodes", "web1")) == stop
    assert list_active(merge({}, [undone, stop, drain], NOW_MS), NOW_MS).maint == {}


def test_an_old_copy_of_an_undone_order_does_not_come_back() -> None:
    """The mark of an undone order outlives every copy of the order that can still arrive."""
    table = merge({}, [make(), make(UNDONE, NOW_MS + 1)], NOW_MS)
    later_ms = NOW_MS + KEEP_MS // 2
    assert list_active(merge(prune(table, later_ms), [make()], later_ms), later_ms).maint == {}
    assert prune(table, NOW_MS + KEEP_MS + 2) == {}


def test_a_service_of_its_own_and_stop_before_drain() -> None:
    """An order in one service says nothing of another one, and of two that apply the stricter counts."""
    everywhere, in_api = make(), make(STOP, NOW_MS - 5, service="api")
    found = list_active(merge({}, [everywhere, in_api], NOW_MS), NOW_MS)
    assert found.find(("api", "web1")) == in_api
    assert found.find(("nodes", "web1")) == everywhere
    assert found.find(("nodes", "web2")) is None


def test_local_orders_stand_beside_those_of_the_cluster() -> None:
    """An order for this balancer alone neither replaces nor is replaced by one for all."""
    table = merge({}, [make(), make(STOP, is_local=True), make(UNDONE, NOW_MS + 1)], NOW_MS, is_sent=False)
    assert list_active(table, NOW_MS).find(("nodes", "web1")) == make(STOP, is_local=True)
    assert {one.order.is_local: one.is_sent for one in table.values()} == {True: True, False: False}


def test_an_order_that_replaces_another_is_later_whatever_the_clock_says() -> None:
    """An operator can undo an order of a balancer whose clock is ahead."""
    ahead = make(at_ms=NOW_MS + MINUTE)
    table = merge({}, [ahead], NOW_MS)
    undone = follow(table, make(UNDONE))
    assert undone.at_ms == ahead.at_ms + 1
    assert list_active(merge(table, [undone], NOW_MS), NOW_MS).maint == {}
    assert follow({}, ahead) == ahead


def test_a_release_concerns_what_was_lost_before_it() -> None:
    """A release counts from when it was given, or was heard where a clock is ahead, and never in the future."""
    all_nodes, one = make(ON, NOW_MS - 5, RELEASE, node=""), make(ON, NOW_MS + MINUTE, RELEASE)
    active = list_active(merge({}, [all_nodes, one], NOW_MS), NOW_MS)
    assert active.released_ns // 1_000_000 == NOW_MS - 5
    assert {node: at_ns // 1_000_000 for node, at_ns in active.released.items()} == {"web1": NOW_MS}
    was_set_back = list_active(merge({}, [one, all_nodes], NOW_MS), NOW_MS - MINUTE)
    assert (was_set_back.released_ns, was_set_back.released) == (0, {})


def test_a_pause_and_a_reload_are_found() -> None:
    """A pause counts until it is undone; an order to reload until its time has passed."""
    pause = make(ON, verb=PAUSE, node="")
    reload = make(ON, verb=RELOAD, node="", until_ms=NOW_MS + MINUTE)
    table = merge({}, [pause, reload], NOW_MS)
    assert list_active(table, NOW_MS)[1] == pause
    assert list_active(table, NOW_MS).reload == reload
    drains = [make(node="web2"), make(node="web1"), make(STOP, node="web2", service="api")]
    assert list_active(merge(table, drains, NOW_MS), NOW_MS).list_lasting() == [pause, drains[1], drains[2], drains[0]]
    assert list_active(table, NOW_MS + MINUTE).reload is None
    resumed = merge(table, [make(UNDONE, NOW_MS + 1, PAUSE, node="")], NOW_MS)
    assert list_active(resumed, NOW_MS).pause is None


def test_a_table_is_bounded() -> None:
    """Of too many orders the ended ones go, the oldest first; too many that have effect are refused."""
    ended = [make(UNDONE, NOW_MS + number, node=f"a{number}") for number in range(10)]
    standing = [make(node=f"b{number}") for number in range(MOST - 5)]
    kept = prune(merge({}, ended + standing, NOW_MS), NOW_MS)
    assert {one.order for one in kept.values()} == {*ended[5:], *standing}
    with pytest.raises(ValueError, match="256 orders already"):
        prune(merge({}, [make(node=f"c{number}") for number in range(MOST + 1)], NOW_MS), NOW_MS)


def test_an_order_is_explained() -> None:
    """The words name what is done, the reason, the author, the balancer, and both times."""
    text = explain(make(author="alice", reason="disk swap", until_ms=NOW_MS + MINUTE))
    assert text == "an order drains it: disk swap (alice at lb1, 2026-11-26T03:00:00Z, until 2026-11-26T03:01:00Z)"
    assert explain(make(ON, verb=PAUSE, is_local=True)).startswith("an order to pause (an operator at lb1 alone, ")
