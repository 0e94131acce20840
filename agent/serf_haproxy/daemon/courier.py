"""The courier: carries orders between the balancers of a cluster, over Serf's user events and queries.

An order that is given here goes out as an event. What comes from others is in the inbox, or answers a query. It counts
once its signature and its date have been checked. A balancer asks the others at its start, when one of them
comes, and every minute, so that an event that was lost is made up for. What they answer is a file that their daemon
signs anew every minute.
"""

import logging
import os
import time
from collections.abc import Sequence

from serf_haproxy.control.absence import Absence
from serf_haproxy.control.edges import find_serf
from serf_haproxy.control.order_book import OrderBook
from serf_haproxy.control.order_secrets import OrderSecrets
from serf_haproxy.control.state import State
from serf_haproxy.errors import SerfFault, SystemFault
from serf_haproxy.policy.order_wire import ORDER, PAGE, PAGES, Message, decode, digest_orders, encode, make_pages
from serf_haproxy.policy.orders import Order
from serf_haproxy.policy.proof import Secret
from serf_haproxy.serf import inbox
from serf_haproxy.serf.client import Client
from serf_haproxy.serf.query import Query
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import write_quickly
from serf_haproxy.system.locks import locked
from serf_haproxy.system.moments import time_ms

log = logging.getLogger("serf-haproxy")

QUERY = "lb-orders"

_LOCK_S = 60.0
_SIGN_S = 60.0  # how often pages are dated anew: a fraction of what `order_wire` takes for fresh
_ASK_S = 60.0
_ANSWER_S = 2.0  # how long answers to a query are awaited
_ASKED_COUNT = 16  # balancers in one query
_SEND_COUNT = 16  # events in a row
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
_QUIET_S = 60.0  # the same complaint is logged no more often
_COMPLAINT_COUNT = 32


class Courier:
    """Carries orders.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._book = OrderBook(settings.state_dir)
        self._lock_path = State(settings.state_dir).pass_lock_path
        self._secrets = OrderSecrets(settings)
        self._absence = Absence(self._book, self._lock_path)
        self._has_mail, self._has_lapsed = True, False
        self._query: Query | None = None
        self._is_one_asked = False
        self._pages_wanted: list[tuple[str, int]] = []
        self._others: tuple[str, ...] = ()
        self._ask_at_s = self._send_at_s = self._sign_at_s = 0.0
        self._failure_count = self._asked_count = 0
        self._signed: object = None
        self._told_s: dict[str, float] = {}

    def note_mail(self) -> None:
        """Note that there may be orders to take."""
        self._has_mail = True

    def work(self, client: Client, self_name: str, others: Sequence[str]) -> bool:
        """Do what is due; return whether there are new orders to obey.

        Args:
            client: The connections to the Serf agent.
            self_name: The balancer's own node, "" while it is not known.
            others: The other balancers that are alive.
        """
        secrets = self._find_secrets()
        is_news = self._take(secrets) if self._has_mail else False
        now_s = time.monotonic()
        if secrets is None or not self_name:
            return is_news
        self._absence.look_at_clock(is_serf_up=client.is_up())
        if now_s >= self._send_at_s and client.is_up():
            self._send(client, secrets)
        is_due = self._signed is not self._book.read() or now_s >= self._sign_at_s
        if is_due and not self._absence.is_doubtful:
            self._publish(self_name, secrets)
        if set(others) - set(self._others):
            self._ask_at_s = 0.0
        self._others = tuple(others)
        if self._query is None and client.is_up() and others and (now_s >= self._ask_at_s or self._pages_wanted):
            self._ask()
            is_news = self.look() or is_news  # answers may have come with what accepts the query
        return is_news

    def watched(self) -> list[Query]:
        """Return the connection of a query; give it to `look` when it turns readable."""
        return [self._query] if self._query else []

    def look(self) -> bool:
        """Read answers; return whether there are new orders to obey."""
        if self._query is None:
            return False
        try:
            answers, is_done = self._query.read_answers()
        except SerfFault:
            answers, is_done = [], True
        if is_done or (answers and self._is_one_asked):
            self.close()
        secrets = self._find_secrets()
        if secrets is None:
            return False
        self._has_lapsed = False
        told = [order for node, said in answers for order in self._read_page(node, said, secrets)]
        return self._put_down(told) or self._has_lapsed

    def close(self) -> None:
        """Close the connection of a query."""
        if self._query:
            self._query.close()
        self._query = None

    def _find_secrets(self) -> tuple[Secret, ...] | None:
        """Return the secrets that sign orders, () where all members are trusted; None where Serf is not to be heard."""
        try:
            secrets = self._secrets.read()
        except SystemFault as error:
            self._complain(f"orders from Serf do not count: {error}")
            return None
        return secrets if secrets or self._settings.unsigned_orders else None

    def _take(self, secrets: tuple[Secret, ...] | None) -> bool:
        """Take what commands have given, and what is in the inbox."""
        self._has_mail = False
        heard: list[Order] = []
        for payload in inbox.take(self._settings.inbox_dir):
            if secrets is None:
                where = "see SERF_HAPROXY_ORDERS_SECRET_FILE"
                self._complain(f"an order from Serf is refused: there is no secret for orders, {where}")
                continue
            try:
                message = decode(payload.rstrip(b"\n"), secrets, time_ms())
                heard += message.orders if message.kind == ORDER else ()
            except ValueError as error:
                self._complain(f"an order from Serf is refused: {error}")
        return self._put_down(heard)

    def _put_down(self, heard: Sequence[Order]) -> bool:
        """Put orders into the book, with those that commands have given; return whether they are news."""
        if not heard and not self._book.has_given():
            return False
        with locked(self._lock_path, _LOCK_S, "another pass"):
            try:
                return bool(self._book.take(heard, time_ms()))
            except ValueError as error:
                self._complain(f"orders are refused: {error}")
                return False

    def _send(self, client: Client, secrets: Sequence[Secret]) -> None:
        """Tell the cluster of orders that were given here."""
        unsent = [one for one in self._book.read().values() if not (one.is_sent or self._absence.has_doubts(one))]
        sent = []
        for order in [one.order for one in unsent[:_SEND_COUNT]]:
            message = encode(Message(ORDER, order.issuer, time_ms(), (order,)), secrets)
            if not client.send_event(inbox.EVENT, message):
                self._send_at_s = time.monotonic() + _PAUSES_S[min(self._failure_count, len(_PAUSES_S) - 1)]
                self._failure_count += 1
                break
            sent.append(order)
        if sent:
            self._failure_count = 0
            with locked(self._lock_path, _LOCK_S, "another pass"):
                self._book.mark_sent(sent)

    def _publish(self, self_name: str, secrets: Sequence[Secret]) -> None:
        """Write the pages that the handler answers with; a page too many goes."""
        table = self._book.read()
        pages = make_pages(self_name, self._book.list_shared(), time_ms(), secrets)
        try:
            for number, page in enumerate(pages):
                write_quickly(self._page_path(number), page.decode("utf-8", "surrogateescape"))
            number = len(pages)
            while number < PAGES and os.path.exists(self._page_path(number)):
                os.unlink(self._page_path(number))
                number += 1
        except (OSError, SystemFault) as error:
            self._complain(f"other balancers cannot ask for the orders of this one: {error}")
        self._signed, self._sign_at_s = table, time.monotonic() + _SIGN_S

    def _page_path(self, number: int) -> str:
        return os.path.join(self._settings.answers_dir, f"orders.{number}")

    def _ask(self) -> None:
        """Ask other balancers for their first page, or one for a further page."""
        if self._pages_wanted:
            node, page = self._pages_wanted.pop(0)
            nodes: tuple[str, ...] = (node,)
        else:
            first = self._asked_count % len(self._others)
            nodes, page = (self._others[first:] + self._others[:first])[:_ASKED_COUNT], 0
            self._asked_count += len(nodes)
            self._ask_at_s = time.monotonic() + _ASK_S
        self._is_one_asked = len(nodes) == 1
        try:
            self._query = Query(find_serf(self._settings), QUERY, str(page).encode("ascii"), nodes, _ANSWER_S)
        except SerfFault as error:
            log.debug("%s", f"other balancers were not asked: {error}")

    def _read_page(self, node: str, payload: bytes, secrets: Sequence[Secret]) -> tuple[Order, ...]:
        """Return the orders of a page, and note which page to ask for next."""
        try:
            message = decode(payload.rstrip(b"\n"), secrets, time_ms())
        except ValueError as error:
            self._complain(f"an answer with orders is refused: {error}")
            return ()
        if message.kind != PAGE:
            return ()
        self._has_lapsed = self._absence.hear(message) or self._has_lapsed
        if message.digest == digest_orders(self._book.list_shared()):
            return ()
        following = (node, message.page + 1)
        is_asked = following in self._pages_wanted or len(self._pages_wanted) >= PAGES
        if message.page + 1 < message.page_count and not is_asked:
            self._pages_wanted.append(following)
        return message.orders

    def _complain(self, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s.get(text, -_QUIET_S) < _QUIET_S or len(self._told_s) >= _COMPLAINT_COUNT:
            self._told_s = {one: at_s for one, at_s in self._told_s.items() if now_s - at_s < _QUIET_S}
            return
        self._told_s[text] = now_s
        log.warning("%s", text)
