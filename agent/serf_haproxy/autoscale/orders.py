"""The autoscaler's own orders: what it drains, on all balancers, as an operator would."""

import time
from typing import NamedTuple

from serf_haproxy.control.give import Desk, Wish
from serf_haproxy.control.order_book import OrderBook
from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.policy.orders import DRAIN, MAINT, PAUSE, STOP, UNDONE, Order
from serf_haproxy.settings import Settings
from serf_haproxy.system.moments import time_ms

AUTHOR = "autoscale"
_REASON = 100  # characters
_MARGIN_S = 900.0  # an order whose autoscaler has died ends so long after its drain's limit


class Standing(NamedTuple):
    """Orders that have effect.

    Attributes:
        ours: Those of the autoscaler, by node.
        others: Those of operators about nodes.
        is_paused: Whether an order lets passes change nothing.
    """

    ours: dict[str, Order]
    others: list[Order]
    is_paused: bool

    def find_kept(self, service: str) -> set[str]:
        """Return the nodes that an operator keeps out of a service."""
        return {order.node for order in self.others if order.service in ("", service)}


class Orders:
    """What the autoscaler orders; a fault of the order book raises SystemFault.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._book = OrderBook(settings.state_dir)

    def read(self) -> Standing:
        """Return the orders that have effect, with those that the daemon has not taken yet."""
        now_ms = time_ms()
        orders = self._book.read_all(now_ms)
        active = [one.order for one in orders.values() if one.order.is_active(now_ms)]
        about = [order for order in active if order.verb == MAINT]
        ours = {order.node: order for order in about if order.author == AUTHOR and not order.service}
        others = [order for order in about if ours.get(order.node) is not order]
        return Standing(ours, others, any(order.verb == PAUSE for order in active))

    def drain(self, slot: str, reason: str, limit_s: float, *, is_last: bool) -> None:
        """Have a server drained by all balancers.

        Args:
            slot: The name of its node.
            reason: Why.
            limit_s: How long it may drain.
            is_last: Whether no other one is in service: only an order to stop takes the last one out.
        """
        wish = Wish(time.time() + limit_s + _MARGIN_S, AUTHOR, reason[:_REASON])
        self._give(STOP if is_last else DRAIN, slot, wish)

    def undo(self, slot: str) -> None:
        """Undo the order about a server."""
        self._give(UNDONE, slot, Wish(author=AUTHOR))

    def _give(self, mode: str, slot: str, wish: Wish) -> None:
        desk = Desk(self._settings)
        try:
            desk.give([desk.make(MAINT, mode, wish, "", slot)])
        except InputError as error:
            raise SystemFault(str(error)) from error
