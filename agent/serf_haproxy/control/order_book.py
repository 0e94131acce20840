"""The order book: the orders that a balancer keeps, in its state directory.

orders.json   the orders, with the marks of those that are undone; only the daemon writes it
given/        orders that commands have given on this balancer, one file for each; the daemon takes them from there
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any

from serf_haproxy.control.record import DAMAGE
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.order_wire import read_order
from serf_haproxy.policy.orders import MOST, Order, Orders, Standing, Subject, Table, follow, list_active, merge, prune
from serf_haproxy.system.files import find_stamp, read_text, remove_temporaries, set_aside, write_durably
from serf_haproxy.system.moments import time_ms

_GIVEN_COUNT = 1024  # more than one command ever gives, many times over
_GIVEN_BYTES = 65536
_TRY_COUNT = 10
_SUFFIX = ".json"

_Content = tuple[str, dict[Subject, Standing], int, int]  # text, orders, `reloaded_ms` and `seen_ms`


class OrderBook:
    """The orders of a balancer; a file that cannot be written or read raises SystemFault.

    Args:
        state_dir: The state directory.
    """

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir
        self._path = os.path.join(state_dir, "orders.json")
        self._given_dir = os.path.join(state_dir, "given")
        self._read: _Content = ("", {}, 0, 0)  # most passes read what they read before
        self._stamp: tuple[int, ...] | None = None

    def set_aside(self) -> None:
        """Set aside what is in the place of the book or of `given/` and is none; orders in memory are written again.

        The caller holds the lock of the pass.

        Raises:
            SystemFault: The book cannot be written.
        """
        set_aside(self._given_dir, is_right=stat.S_ISDIR)
        if set_aside(self._path, has_copy=bool(self._read[1])) and self._read[1]:
            self._write(self._read[1])

    def read(self) -> Table:
        """Return the orders; what is damaged is left out."""
        self._look()
        return self._read[1]

    def list_shared(self) -> list[Order]:
        """Return the orders that count on all balancers."""
        return [one.order for one in self.read().values() if not one.order.is_local]

    def read_active(self, now_ms: int) -> Orders:
        """Return the orders that have effect, with those in `given/`; one to reload only until it has been obeyed."""
        orders = list_active(self.read_all(now_ms), now_ms)
        if orders.reload is not None and orders.reload.at_ms <= self._read[2]:
            return orders._replace(reload=None)
        return orders

    def read_all(self, now_ms: int) -> Table:
        """Return the orders, with those that wait in `given/`: for a command, which does not take them."""
        for _ in range(_TRY_COUNT):  # the daemon may take some meanwhile
            given = self._list_given()  # first: what it takes is in the book before its file goes
            table = self.read()
            if not given or given.keys() == self._list_given().keys():
                break
        return self._put_in(table, given, now_ms)

    def give(self, orders: Sequence[Order]) -> None:
        """Give orders to the daemon of this balancer, which takes them when it is woken or started.

        Raises:
            SystemFault: They cannot be written; the text says what to do.
        """
        try:
            os.makedirs(self._given_dir, 0o700, exist_ok=True)
            owner = os.stat(self._state_dir)
            ids = (owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None  # the daemon may be another user
            if ids:
                os.chown(self._given_dir, *ids)
            path = os.path.join(self._given_dir, f"{orders[0].at_ms}-{os.urandom(4).hex()}{_SUFFIX}")
            write_durably(path, json.dumps(orders) + "\n", 0o600, owner=ids)
        except OSError as error:
            remedy = "run this as the daemon's user"
            raise SystemFault(f"cannot write into {self._given_dir}: {error.strerror}; {remedy}") from error

    def has_given(self) -> bool:
        """Return whether commands have given orders that were not taken yet."""
        with contextlib.suppress(OSError):  # no order has ever been given here
            return bool(os.listdir(self._given_dir))
        return False

    def take_given(self) -> tuple[str, ...]:
        """Take the orders that commands have given, if there are any; return complaints."""
        try:
            if self.has_given():
                self.take((), time_ms())
        except ValueError as error:
            return (f"orders are refused: {error}",)
        return ()

    def take(self, heard: Iterable[Order], now_ms: int) -> tuple[Order, ...]:
        """Put into the book what commands have given and what came from other balancers; return what is new.

        Args:
            heard: Orders of other balancers, whose messages have been checked.
            now_ms: The time, milliseconds since the epoch.

        Raises:
            SystemFault: The book cannot be written; nothing is lost, and the next call tries again.
            ValueError: There are too many orders; those that were given are gone.
        """
        before = self.read()
        given = self._list_given()
        try:
            after = self._put_in(before, given, now_ms)
            after = prune(merge(after, heard, now_ms), now_ms)
        except ValueError:
            self._remove(given)
            raise
        if after != before:
            self._write(after)
        self._remove(given)
        return tuple(one.order for subject, one in after.items() if before.get(subject) != one)

    def mark_sent(self, orders: Iterable[Order]) -> None:
        """Note that the cluster has been told of orders."""
        table = dict(self.read())
        for order in orders:
            if (standing := table.get(order.subject)) is not None and standing.order == order:
                table[order.subject] = standing._replace(is_sent=True)
        if table != self.read():
            self._write(table)

    def mark_reloaded(self, order: Order) -> None:
        """Note that an order to reload was obeyed."""
        self._write(dict(self.read()), reloaded_ms=order.at_ms)

    def read_seen_ms(self) -> int:
        """Return when this balancer last noted that it is there, milliseconds since the epoch; 0 for never."""
        self._look()
        return self._read[3]

    def note_seen(self, now_ms: int) -> None:
        """Note that this balancer is there."""
        self._write(dict(self.read()), seen_ms=now_ms)

    def drop(self, subjects: Iterable[Subject], now_ms: int) -> None:
        """Drop orders without a mark, and note that this balancer is there."""
        gone = set(subjects)
        self._write({key: one for key, one in self.read().items() if key not in gone}, seen_ms=now_ms)

    def clean_up(self) -> None:
        """Remove the temporary files of an interrupted write; the caller holds the lock of the pass."""
        remove_temporaries(self._path)

    def _put_in(self, table: Table, given: dict[str, list[Order]], now_ms: int) -> dict[Subject, Standing]:
        merged = dict(table)
        for order in (order for name in sorted(given) for order in given[name]):
            standing = merged.get(order.subject)
            if standing is None or standing.order != order:
                merged = merge(merged, [follow(merged, order)], now_ms, is_sent=False)
        return merged

    def _list_given(self) -> dict[str, list[Order]]:
        """Return the orders in `given/` by path; a damaged file has none."""
        try:
            names = sorted(name for name in os.listdir(self._given_dir) if name.endswith(_SUFFIX))[:_GIVEN_COUNT]
        except OSError:
            return {}
        given: dict[str, list[Order]] = {}
        for name in names:
            path = os.path.join(self._given_dir, name)
            given[path] = []
            with contextlib.suppress(*DAMAGE, SystemFault, OSError):  # OSError: it has been taken meanwhile
                if stat.S_ISREG(os.lstat(path).st_mode):
                    rows: Any = json.loads(read_text(path, _GIVEN_BYTES) or "[]")
                    given[path] = [read_order(row[:-1], row[-1] is True) for row in rows[:MOST]]
        return given

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _write(self, table: Table, reloaded_ms: int = 0, seen_ms: int = 0) -> None:
        reloaded_ms, seen_ms = reloaded_ms or self._read[2], seen_ms or self._read[3]
        rows = [[list(one.order), one.taken_ms, one.is_sent] for one in table.values()]
        document = {"version": 1, "reloaded_ms": reloaded_ms, "seen_ms": seen_ms, "orders": rows}
        text = json.dumps(document, indent=0) + "\n"
        write_durably(self._path, text, 0o600)
        self._read = text, dict(table), reloaded_ms, seen_ms

    def _look(self) -> None:
        stamp = find_stamp(self._path)
        if stamp is not None and stamp == self._stamp:
            return
        text = read_text(self._path) or ""
        if text != self._read[0]:
            self._read = text, *_parse(text)
        self._stamp = stamp


def _parse(text: str) -> tuple[dict[Subject, Standing], int, int]:
    table: dict[Subject, Standing] = {}
    try:
        told: Any = json.loads(text)
        rows, reloaded_ms = list(told["orders"]), int(told["reloaded_ms"])
        seen_ms = int(told.get("seen_ms", 0))  # the previous release does not write it
    except (*DAMAGE, LookupError):
        return {}, 0, 0
    for row in rows[:MOST]:
        with contextlib.suppress(*DAMAGE, LookupError):
            fields, taken_ms, is_sent = row
            order = read_order(fields[:-1], fields[-1] is True)
            table[order.subject] = Standing(order, int(taken_ms), is_sent is True)
    return table, reloaded_ms, seen_ms
