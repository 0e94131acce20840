"""The order book: durable, private, bounded, and right after a crash at any moment."""

import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from serf_haproxy.control.give import Desk, Wish
from serf_haproxy.control.order_book import OrderBook
from serf_haproxy.errors import InputError
from serf_haproxy.policy.orders import DRAIN, MAINT, MOST, ON, PAUSE, RELOAD, STOP, UNDONE, Order
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.settings import Settings

NOW_MS = time.time_ns() // 1_000_000


def make(node: str = "web1", mode: str = DRAIN, at_ms: int = NOW_MS, issuer: str = "lb1") -> Order:
    return Order(MAINT, "", node, mode, at_ms, issuer, reason="disk swap")


def stand(book: OrderBook) -> dict[str, bool]:
    """Return the nodes that orders in effect are about, and whether the cluster has been told."""
    return {one.order.node: one.is_sent for one in book.read().values() if one.order.is_active(NOW_MS)}


def test_given_orders_are_taken_once_and_kept(tmp_path: Path) -> None:
    """What a command gives is in the book after it is taken, of this and of every later process."""
    book = OrderBook(str(tmp_path))
    book.give([make(), make("web2")])
    assert stand(book) == {}
    assert {order.node for order in book.take((), NOW_MS)} == {"web1", "web2"}
    assert book.take((), NOW_MS) == ()
    assert stand(OrderBook(str(tmp_path))) == {"web1": False, "web2": False}
    assert not book.has_given()


def test_an_order_is_seen_while_the_daemon_takes_it(tmp_path: Path) -> None:
    """At every moment a command finds it, in the book or beside it, and no file that goes meanwhile is an error."""
    daemon, command, is_done = OrderBook(str(tmp_path)), OrderBook(str(tmp_path)), threading.Event()

    def take() -> None:
        while not is_done.is_set():
            daemon.take((), NOW_MS)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        for number in range(100):
            mode = STOP if number % 2 else DRAIN
            command.give([make(mode=mode, at_ms=NOW_MS + number)])
            for _ in range(10):
                assert [one.order.mode for one in command.read_all(NOW_MS).values()] == [mode]
    finally:
        is_done.set()
        thread.join()


def test_the_book_is_private(tmp_path: Path) -> None:
    """Only the daemon's user reads the orders, and what commands have given."""
    book = OrderBook(str(tmp_path))
    book.give([make()])
    given = list((tmp_path / "given").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "given", *given)] == [0o700, 0o600]
    book.take((), NOW_MS)
    assert stat.S_IMODE((tmp_path / "orders.json").stat().st_mode) == 0o600


def test_a_crash_before_given_orders_are_removed_changes_nothing(tmp_path: Path) -> None:
    """Orders that are taken a second time are the same orders, and a later order is not undone by them."""
    book = OrderBook(str(tmp_path))
    book.give([make()])
    path = next((tmp_path / "given").iterdir())
    content = path.read_bytes()
    book.take((), NOW_MS)
    path.write_bytes(content)
    assert book.take((), NOW_MS) == ()
    assert stand(book) == {"web1": False}


def test_orders_of_others_are_merged(tmp_path: Path) -> None:
    """An order that was heard replaces an earlier one, and needs not be sent."""
    book = OrderBook(str(tmp_path))
    book.give([make()])
    book.take([make(mode=STOP, at_ms=NOW_MS + 5, issuer="lb2")], NOW_MS)
    assert book.read_active(NOW_MS).find(("nodes", "web1")) == make(mode=STOP, at_ms=NOW_MS + 5, issuer="lb2")
    assert stand(book) == {"web1": True}


def test_an_order_that_was_sent_is_not_sent_again(tmp_path: Path) -> None:
    """The mark belongs to this very order: a later one about the same node is sent again."""
    book = OrderBook(str(tmp_path))
    book.give([make()])
    taken = book.take((), NOW_MS)
    book.mark_sent(taken)
    assert stand(OrderBook(str(tmp_path))) == {"web1": True}
    book.give([make(mode=STOP)])
    book.take((), NOW_MS)
    book.mark_sent(taken)
    assert stand(book) == {"web1": False}


def test_a_reload_is_obeyed_once(tmp_path: Path) -> None:
    """An order to reload is in effect until it was obeyed, also in the eyes of another process."""
    book = OrderBook(str(tmp_path))
    order = Order(RELOAD, "", "", ON, NOW_MS, "lb1", NOW_MS + 60_000)
    book.take([order], NOW_MS)
    assert book.read_active(NOW_MS).reload == order
    book.mark_reloaded(order)
    assert OrderBook(str(tmp_path)).read_active(NOW_MS).reload is None
    later = order._replace(at_ms=NOW_MS + 1)
    book.take([later], NOW_MS)
    assert book.read_active(NOW_MS).reload == later


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"orders": 5, "reloaded_ms": 0}', '{"orders": [[1], null, []], "reloaded_ms": 0}', "\0"]
)
def test_a_damaged_book_counts_as_empty(tmp_path: Path, damage: str) -> None:
    """Whatever is in the file, the daemon goes on, and the next order is kept."""
    (tmp_path / "orders.json").write_text(damage)
    book = OrderBook(str(tmp_path))
    assert book.read() == {}
    book.take([make()], NOW_MS)
    assert stand(OrderBook(str(tmp_path))) == {"web1": True}


def test_a_damaged_order_is_left_out_alone(tmp_path: Path) -> None:
    """One order that cannot be read loses no other."""
    book = OrderBook(str(tmp_path))
    book.take([make(), make("web2")], NOW_MS)
    path = tmp_path / "orders.json"
    told = json.loads(path.read_text())
    told["orders"][0][0][2] = "../../etc"
    path.write_text(json.dumps(told))
    assert stand(OrderBook(str(tmp_path))) == {"web2": True}


def test_what_is_given_wrongly_is_removed(tmp_path: Path) -> None:
    """A damaged file, a link and a FIFO among the given orders neither stop the daemon nor stay."""
    book = OrderBook(str(tmp_path))
    book.give([make()])
    given = tmp_path / "given"
    (given / "0.json").write_text('[["maint"]]')
    (given / "1.json").symlink_to(tmp_path / "orders.json")
    os.mkfifo(given / "2.json")
    book.take((), NOW_MS)
    assert stand(book) == {"web1": False}
    assert list(given.iterdir()) == []


def test_too_many_orders_are_refused(tmp_path: Path) -> None:
    """What is beyond the bound is refused with a reason, and what was there stays."""
    book = OrderBook(str(tmp_path))
    book.take([make(f"web{number}") for number in range(MOST)], NOW_MS)
    book.give([make("other")])
    assert book.take_given() == (
        "orders are refused: there are 256 orders already; undo some with 'serf-haproxy maint unset'",
    )
    assert len(book.read()) == MOST
    assert book.take_given() == ()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings whose files are in a directory of the test."""
    (tmp_path / "nodes").mkdir()
    return Settings(state_dir=str(tmp_path), wake_fifo=str(tmp_path / "wake"), nodes_dir=str(tmp_path / "nodes"))


def test_an_order_that_no_balancer_could_read_is_refused(settings: Settings) -> None:
    """A wrong name, a reason with control characters and one that is too long are refused where the order is given."""
    desk = Desk(settings)
    for node, wish in (("we b", Wish()), ("web1", Wish(reason="a\nb")), ("n" * 120, Wish(reason="ä" * 199))):
        with pytest.raises(InputError, match="no order: "):
            desk.make(MAINT, DRAIN, wish, node=node)


def test_to_undo_finds_every_order_about_a_node(settings: Settings) -> None:
    """Orders in one service, in all, and for this balancer alone are undone together, or one service's alone."""
    desk = Desk(settings)
    desk.give([desk.make(MAINT, DRAIN, Wish(), service, "web1") for service in ("", "api")])
    desk.give([desk.make(MAINT, STOP, Wish(is_local=True), "", "web1")])
    assert [(one.service, one.mode) for one in desk.undo("web1", "api", Wish())] == [("api", UNDONE)]
    assert len(desk.undo("web1", "", Wish())) == 3
    assert [one.is_local for one in desk.undo("web1", "", Wish(is_local=True))] == [True]
    with pytest.raises(InputError, match="there is no order about web2"):
        desk.undo("web2", "", Wish())


def test_where_an_order_counts_is_said(settings: Settings) -> None:
    """Without the daemon an order waits for it; beside another balancer and without a secret it counts here alone."""
    desk = Desk(settings)
    order = desk.make(PAUSE, ON, Wish())
    assert desk.give([order]) == ", once the daemon runs"
    os.mkfifo(settings.wake_fifo)
    fd = os.open(settings.wake_fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        assert desk.give([order]) == ""
        record(settings.nodes_dir, "alive", Member("lb2", "10.0.0.2", "balancer", ()))
        assert "on this balancer alone: SERF_HAPROXY_ORDERS_SECRET_FILE" in desk.give([order])
        assert desk.give([order._replace(is_local=True)]) == ""
        assert os.read(fd, 10) == b"ooo"
    finally:
        os.close(fd)
