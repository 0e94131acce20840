"""A balancer that was away for longer than the marks of undone orders are kept.

Orders that it had may have been undone meanwhile, and no balancer has the marks any more. They go on counting here, and
others hear nothing of them until another balancer has told all of its own. Then what that one does not know any
more is dropped. If Serf has been up for a while and none has told its own, none knows better, and the orders count
everywhere.
"""

import logging
import time

from serf_haproxy.control.order_book import OrderBook
from serf_haproxy.policy.order_wire import Message, digest_orders
from serf_haproxy.policy.orders import KEEP_MS, Order, Standing, Subject, describe, name_subject
from serf_haproxy.system.locks import locked
from serf_haproxy.system.moments import time_ms

log = logging.getLogger("serf-haproxy")

_DAY_MS = 86400 * 1000
_LOCK_S = 60.0
_ROUND_S, _ROUND_COUNT = 60.0, 10  # others are asked once in a round
_TELLER_COUNT = 16


class Absence:
    """Whether this balancer was away, and what others have told since.

    Args:
        book: The orders.
        lock_path: The lock of a pass.

    Attributes:
        is_doubtful: Whether orders of ours may have been undone while this balancer was away.
    """

    def __init__(self, book: OrderBook, lock_path: str) -> None:
        self._book, self._lock_path = book, lock_path
        self._seen_ms = book.read_seen_ms()
        self._round_count, self._round_at_s = 0, 0.0
        self._told: dict[tuple[str, str], dict[int, tuple[Order, ...]]] = {}  # pages by sender and digest
        away_ms = time_ms() - self._seen_ms if self._seen_ms else 0
        self.is_doubtful = away_ms > KEEP_MS and bool(self._list_old())
        if self.is_doubtful:
            days = f"for about {away_ms // _DAY_MS} days"
            how = "other balancers hear of its orders from before once one of them has told its own"
            log.warning("%s", f"this balancer was away {days}: {how}")

    def has_doubts(self, one: Standing) -> bool:
        """Return whether an order is from before the absence, so that it may have been undone meanwhile."""
        return self.is_doubtful and self._is_old(one)

    def look_at_clock(self, *, is_serf_up: bool) -> None:
        """End the doubts when none has told its own for a while, and note once a day that this balancer is here."""
        now_s, at_ms = time.monotonic(), time_ms()
        if self.is_doubtful and is_serf_up and now_s >= self._round_at_s:
            self._round_at_s, self._round_count = now_s + _ROUND_S, self._round_count + 1
            if self._round_count > _ROUND_COUNT:
                log.warning("%s", "no other balancer tells its orders, so those of this one count everywhere again")
                self.is_doubtful = False
        if not self.is_doubtful and self._book.read() and abs(at_ms - self._book.read_seen_ms()) > _DAY_MS:
            with locked(self._lock_path, _LOCK_S, "another pass"):
                self._book.note_seen(at_ms)

    def hear(self, page: Message) -> bool:
        """Take a page of another balancer; return whether orders have been dropped.

        Args:
            page: The page, whose signature and date are right.
        """
        if not self.is_doubtful:
            return False
        is_same = page.digest == digest_orders(self._book.list_shared())
        pages = self._told.setdefault((page.sender, page.digest), {})
        pages[page.page] = page.orders
        if len(self._told) > _TELLER_COUNT:
            self._told = {}
        if not is_same and len(pages) < page.page_count:
            return False
        known = {order.subject for orders in pages.values() for order in orders}
        lapsed = [] if is_same else [one for one in self._list_old() if one not in known]
        for subject in lapsed:
            order = self._book.read()[subject].order
            what = f"{describe(order)} {name_subject(order)}".rstrip()
            why = f"{page.sender} does not know it any more"
            log.warning("%s", f"an order from before this balancer was away is dropped, since {why}: {what}")
        self.is_doubtful, self._told = False, {}
        with locked(self._lock_path, _LOCK_S, "another pass"):
            self._book.drop(lapsed, time_ms())
        return bool(lapsed)

    def _list_old(self) -> list[Subject]:
        return [subject for subject, one in self._book.read().items() if self._is_old(one)]

    def _is_old(self, one: Standing) -> bool:
        return not one.order.is_local and one.taken_ms < self._seen_ms + KEEP_MS // 2
