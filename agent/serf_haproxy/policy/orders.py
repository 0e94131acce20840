"""Orders of operators, and how those of several balancers become one table. Pure.

An order is about one subject: a node in one service or in all, or the balancer itself. Of two orders about the same
subject the later one counts, by the time at which each was given and the name of the balancer where. So balancers that
have heard the same orders obey the same ones, in whatever order they heard them, and however often. An order that is
undone leaves a mark, so that an older copy of it does not come back.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.services import Key, format_key
from serf_haproxy.system.moments import format_time

MAINT, PAUSE, RELEASE, RELOAD = "maint", "pause", "release", "reload"
DRAIN, STOP, ON, UNDONE = "drain", "stop", "on", ""
FORMS = ((MAINT, DRAIN), (MAINT, STOP), (MAINT, UNDONE), (PAUSE, ON), (PAUSE, UNDONE), (RELEASE, ON), (RELOAD, ON))

MOST = 256  # orders that a balancer keeps
KEEP_MS = 30 * 86400 * 1000  # a mark stays longer than a balancer is away
RELOAD_MS = 300 * 1000  # a balancer that hears an order to reload later than this does not reload
_FUTURE_MS = 5000  # a time further ahead was written before the clock was set back

Subject = tuple[str, str, str, bool]


class Order(NamedTuple):
    """What an operator orders.

    Attributes:
        verb: MAINT, PAUSE, RELEASE or RELOAD.
        service: The service; "" for all.
        node: The node; "" for all, or where the verb is about the balancer.
        mode: What `FORMS` allows for the verb; UNDONE for the mark of an order that is undone.
        at_ms: When it was given, milliseconds since the epoch, by the clock of the balancer.
        issuer: The balancer at which it was given, by its node name.
        until_ms: When it ends, milliseconds since the epoch; 0 for never.
        author: The operator.
        reason: Why, in the operator's words.
        is_local: Whether it counts on this balancer alone.
    """

    verb: str
    service: str
    node: str
    mode: str
    at_ms: int
    issuer: str
    until_ms: int = 0
    author: str = ""
    reason: str = ""
    is_local: bool = False

    @property
    def subject(self) -> Subject:
        """What it is about; of two orders about the same the later one counts."""
        return self.verb, self.service, self.node, self.is_local

    def is_active(self, now_ms: int) -> bool:
        """Return whether it has effect."""
        return bool(self.mode) and (not self.until_ms or now_ms < self.until_ms)


class Standing(NamedTuple):
    """An order as a balancer keeps it.

    Attributes:
        order: The order.
        taken_ms: When this balancer took it, milliseconds since the epoch.
        is_sent: Whether the cluster has been told.
    """

    order: Order
    taken_ms: int
    is_sent: bool = True


Table = Mapping[Subject, Standing]


def merge(table: Table, orders: Iterable[Order], now_ms: int, is_sent: bool = True) -> dict[Subject, Standing]:
    """Return a table with further orders, as far as they are later than those that it has.

    The result does not depend on the order in which orders arrive, nor on how often they do.

    Args:
        table: The table.
        orders: The orders.
        now_ms: The time, milliseconds since the epoch.
        is_sent: Whether the cluster knows them.
    """
    merged = dict(table)
    for order in orders:
        before = merged.get(order.subject)
        if before is None or _rank(before.order) < _rank(order):
            merged[order.subject] = Standing(order, now_ms, is_sent or order.is_local)
    return merged


def prune(table: Table, now_ms: int) -> dict[Subject, Standing]:
    """Return a table without the orders that ended long ago; of too many the ended ones go first, the oldest of all.

    Raises:
        ValueError: There are too many that have not ended.
    """
    kept = {subject: one for subject, one in table.items() if _is_kept(one.order, now_ms)}
    if len(kept) > MOST:
        ended = [subject for subject, one in kept.items() if is_over(one.order, now_ms)]
        for subject in sorted(ended, key=lambda each: _rank(kept[each].order))[: len(kept) - MOST]:
            del kept[subject]
    if len(kept) > MOST:
        raise ValueError(f"there are {MOST} orders already; undo some with 'serf-haproxy maint unset'")
    return kept


def is_over(order: Order, now_ms: int) -> bool:
    """Return whether an order is undone, has ended, or asks for something that is done at once."""
    return order.verb in (RELEASE, RELOAD) or not order.is_active(now_ms)


def follow(table: Table, order: Order) -> Order:
    """Return an order with a time after that of the order that it replaces, whatever the clocks of balancers say."""
    before = table.get(order.subject)
    if before is None or before.order.at_ms < order.at_ms:
        return order
    return order._replace(at_ms=before.order.at_ms + 1)


class Orders(NamedTuple):
    """The orders that have effect at a moment.

    Attributes:
        maint: Orders about a node, by its name: those that stop first, then the latest first.
        pause: The order by which passes change nothing; None for none.
        released_ns: When everything was released last, nanoseconds since the epoch; 0 for never.
        released: When a node was released last, by its name.
        reload: The order to reload that was given last; None for none that still counts.
        ends_in_s: After how many seconds the first of them ends; None for never.
    """

    maint: Mapping[str, tuple[Order, ...]] = {}
    pause: Order | None = None
    released_ns: int = 0
    released: Mapping[str, int] = {}
    reload: Order | None = None
    ends_in_s: float | None = None

    def list_lasting(self) -> list[Order]:
        """Return those to pause and about nodes, by node; the others are obeyed at once."""
        return [*filter(None, [self.pause]), *(order for name in sorted(self.maint) for order in self.maint[name])]

    def find(self, key: Key) -> Order | None:
        """Return the order about a node in a service that counts: to stop before to drain, then the latest."""
        return next((order for order in self.maint.get(key[1], ()) if order.service in ("", key[0])), None)


def list_active(table: Table, now_ms: int) -> Orders:
    """Return the orders that have effect now."""
    if not table:
        return Orders()
    active = [one for one in table.values() if one.order.is_active(now_ms)]
    orders = sorted((one.order for one in active), key=lambda one: (one.mode != STOP, -one.at_ms, one.issuer))
    maint: dict[str, tuple[Order, ...]] = {}
    for order in orders:
        if order.verb == MAINT:
            maint[order.node] = (*maint.get(order.node, ()), order)
    released: dict[str, int] = {}
    for one in active:
        at_ms = min(one.order.at_ms, one.taken_ms)  # a clock that is ahead must not release what is lost until then
        if one.order.verb == RELEASE and at_ms <= now_ms + _FUTURE_MS:
            released[one.order.node] = max(released.get(one.order.node, 0), at_ms * 1_000_000 + 999_999)
    ends_ms = [order.until_ms for order in orders if order.until_ms and order.verb != RELOAD]
    return Orders(
        maint,
        next((order for order in orders if order.verb == PAUSE), None),
        released.pop("", 0),
        released,
        next((order for order in orders if order.verb == RELOAD), None),
        min(ends_ms) / 1e3 - now_ms / 1e3 if ends_ms else None,
    )


def explain(order: Order) -> str:
    """Return an order in words: what it does, why, by whom, since when and until when."""
    what = {DRAIN: "drains it", STOP: "takes it out of service"}.get(order.mode, order.verb)
    where = f" at {order.issuer}{' alone' if order.is_local else ''}" if order.issuer else ""
    until = f", until {format_time(order.until_ms / 1e3)}" if order.until_ms else ""
    words = f"{order.author or 'an operator'}{where}, {format_time(order.at_ms / 1e3)}{until}"
    subject = f"an order {what}" if order.verb == MAINT else f"an order to {order.verb}"
    return f"{subject}{': ' if order.reason else ''}{order.reason} ({words})"


def describe(order: Order) -> str:
    """Return what an order is about, in one or two words."""
    if order.verb == MAINT:
        return f"maint {order.mode or 'unset'}"
    return "resume" if order.verb == PAUSE and not order.mode else order.verb


def tell_end(order: Order) -> str:
    """Return what the mark of an order that is undone means, in words."""
    return "passes may change HAProxy again" if order.verb == PAUSE else "the order about it is undone"


def name_subject(order: Order) -> str:
    """Return the node that an order is about, with its service where it is about one alone; "" for none."""
    return format_key((order.service, order.node)) if order.service else order.node


def _rank(order: Order) -> tuple[int, str, Order]:
    return order.at_ms, order.issuer, order


def _is_kept(order: Order, now_ms: int) -> bool:
    if order.verb not in (RELEASE, RELOAD) and order.is_active(now_ms):
        return True
    return now_ms < max(order.at_ms, order.until_ms if order.mode else 0) + KEEP_MS
