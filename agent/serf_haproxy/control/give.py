"""Giving an order on this balancer: from what an operator says to the daemon."""

import difflib
import os
import pwd
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from serf_haproxy.control.answers import DOWN, FROZEN, ask_haproxy, look_at_daemon
from serf_haproxy.control.edges import Edges, make_edges
from serf_haproxy.control.observe import read_nodes
from serf_haproxy.control.order_secrets import OrderSecrets
from serf_haproxy.errors import InputError
from serf_haproxy.haproxy.socket import PROMPT
from serf_haproxy.policy.claim import list_offers
from serf_haproxy.policy.order_wire import LAST_MS, find_excess, read_order
from serf_haproxy.policy.orders import MAINT, PAUSE, UNDONE, Order, Table, list_active
from serf_haproxy.policy.peers import list_others
from serf_haproxy.policy.proof import Secret
from serf_haproxy.serf.wake import ORDER_WORD, wake
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.settings import Settings
from serf_haproxy.system.moments import format_time, read_time, time_ms

_LAST_S = LAST_MS / 1e3 - 1


class Wish(NamedTuple):
    """What an operator says besides the subject of an order.

    Attributes:
        until_s: When it ends, seconds since the epoch; 0 for never.
        author: The operator; "" for the user who runs the command.
        reason: Why.
        is_local: Whether it counts on this balancer alone.
    """

    until_s: float = 0.0
    author: str = ""
    reason: str = ""
    is_local: bool = False


class Desk:
    """Where commands give orders.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._edges: Edges = make_edges(settings, PROMPT)
        self._order_secrets = OrderSecrets(settings)
        self._now_ms = time_ms()
        self._silence: str | None = None

    def read(self) -> Table:
        """Return the orders of this balancer, with those that the daemon has not taken yet."""
        return self._edges.orders.read_all(self._now_ms)

    def make(self, verb: str, mode: str, wish: Wish, service: str = "", node: str = "") -> Order:
        """Return an order of now.

        Raises:
            InputError: A part of it is wrong; the text says which, and what is allowed.
        """
        issuer = self._edges.state.read_record().self_name or os.uname().nodename
        author = wish.author or _find_user()
        until_ms = int(wish.until_s * 1000)
        fields = [verb, service, node, mode, self._now_ms, issuer, until_ms, author, wish.reason]
        try:
            order = read_order(fields, wish.is_local)
        except (ValueError, TypeError) as error:
            raise InputError(f"no order: {error}") from error
        if excess := find_excess(order, self._secrets()):
            raise InputError(f"no order: it is {excess} bytes too long for an event of Serf; shorten the reason")
        return order

    def undo(self, node: str, service: str, wish: Wish, at_ms: int = 0) -> list[Order]:
        """Return the marks that undo the orders about a node, in one service or in all of them.

        Args:
            node: The node.
            service: The service; "" for the orders in all of them, each alone or all at once.
            wish: Who undoes them, and why.
            at_ms: When the one order was given that is to be undone, milliseconds since the epoch; 0 for all.

        Raises:
            InputError: There is no such order.
        """
        found = [
            standing.order
            for (verb, named, name, is_local), standing in self.read().items()
            if (verb, name) == (MAINT, node) and service in ("", named) and (is_local or not wish.is_local)
            if standing.order.is_active(self._now_ms)
            if not at_ms or (standing.order.at_ms == at_ms and named == service and is_local == wish.is_local)
        ]
        if not found and at_ms:
            raise InputError(f"there is no such order about {node} any more: it has ended, or another has replaced it")
        if not found:
            where = f" in the service {service}" if service else ""
            raise InputError(f"there is no order about {node}{where}; 'serf-haproxy maint list' shows all orders")
        return [self.make(MAINT, UNDONE, wish._replace(is_local=one.is_local), one.service, one.node) for one in found]

    def find_doubt(self, node: str, service: str) -> str:
        """Return why an order may not do what was meant, since nothing has such a name; "" where it does."""
        heard, record = read_nodes(self._settings.nodes_dir), self._edges.state.read_record()
        names = heard.files.keys() | record.refused.keys()
        if node not in names:
            return f"no node {node} is known, and the order counts when it comes{suggest(node, names)}"
        if not service:
            return ""
        file = heard.files.get(node)
        if service not in (DEFAULT_SERVICE, *(list_offers(file.member) if file else ())):
            return f"{node} does not offer {service}, and the order counts when it does"
        return ""

    def give(self, orders: Sequence[Order]) -> str:
        """Give orders to the daemon; return what to say of when and where they count, "" for at once and everywhere.

        Raises:
            SystemFault: They cannot be written.
        """
        self._edges.orders.give(orders)
        waits = [] if wake(self._settings.wake_fifo, ORDER_WORD) else ["the daemon runs"]
        if look_at_daemon(self._edges.state).state == FROZEN:
            waits = ["the daemon goes on, which is stopped now"]
        if any(order.verb != PAUSE for order in orders):
            pause = list_active(self.read(), self._now_ms).pause
            waits += ["the pause ends (`serf-haproxy resume`)"] if pause else []
        if any(order.verb != PAUSE or not order.mode for order in orders):
            waits += filter(None, [self.find_silence()])
        when = f", once {' and '.join(waits)}" if waits else ""
        is_carried = bool(self._secrets()) or self._settings.unsigned_orders or all(order.is_local for order in orders)
        if not is_carried and self.has_others():
            when += ", on this balancer alone: SERF_HAPROXY_ORDERS_SECRET_FILE names no secret that signs it for others"
        return when

    def find_silence(self) -> str:
        """Return what HAProxy has to do before an order counts there; "" where it answers, or that is not known."""
        if self._silence is None:  # asked once: each question to a frozen one costs patience
            answers = self._edges.runtime.read_description() is not None
            state = "" if answers else ask_haproxy(self._edges, None).state
            self._silence = {FROZEN: "HAProxy answers, which is frozen now", DOWN: "HAProxy runs"}.get(state, "")
        return self._silence

    def has_others(self) -> bool:
        """Return whether there is another balancer."""
        self_name, roles = self._edges.state.read_record().self_name, self._settings.balancer_roles
        return bool(list_others(read_nodes(self._settings.nodes_dir).files, roles, self_name))

    def _secrets(self) -> tuple[Secret, ...]:
        return self._order_secrets.read()


def suggest(name: str, names: Collection[str]) -> str:
    """Return the names that are most like one that is not known, as the end of a sentence; "" for none."""
    close = difflib.get_close_matches(name, sorted(names), 3)
    return f"; did you mean {' or '.join(close)}" if close else ""


def read_end(text: str) -> float:
    """Return when an order ends, seconds since the epoch.

    Raises:
        InputError: The text is no time, or this time has passed.
    """
    try:
        end_s = read_time(text, time.time())
    except ValueError as error:
        raise InputError(f"until {text}: {error}") from error
    if end_s <= time.time():
        raise InputError(f"until {text}: this time has passed")
    if end_s > _LAST_S:
        raise InputError(f"until {text}: this is after {format_time(_LAST_S)}; without --until an order does not end")
    return end_s


def _find_user() -> str:
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"
