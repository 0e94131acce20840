"""Tables of the services file that HAProxy cannot run: remembered, so that not every pass tries them again.

Such a table is withheld: its service goes on with the table that was last in force, or is left out. The record keeps
what was found, with the digest of the table's content, so that a changed table is tried at once.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from serf_haproxy.control.outcome import Outcome
from serf_haproxy.control.record import DAMAGE, Record, parse_finite
from serf_haproxy.services.file import Table
from serf_haproxy.settings import Settings

_SHORTEST_S = 1.0
_LISTENER_S, _REFUSAL_S = 2.0, 20.0  # the first pauses; a search costs more than a look at a listener


class Refusal(NamedTuple):
    """Why a table is withheld.

    Attributes:
        digest: The digest of the table.
        words: The reason.
        at_s: When that was found, seconds since the epoch.
        tries: How often in a row.
        basis: The digest of the settings and the template with which HAProxy refuses it; "" where its listener is at
            fault, which another program may give up at any time.
    """

    digest: str
    words: str
    at_s: float
    tries: int
    basis: str = ""

    def left_s(self, now_s: float, longest_s: float) -> float:
        """Return after how many seconds the table is tried again; a clock that was set back ends the pause."""
        first_s = _REFUSAL_S if self.basis else _LISTENER_S
        pause_s = min(longest_s, first_s * 2.0 ** min(self.tries - 1, 20))
        return pause_s - (now_s - self.at_s) if now_s >= self.at_s else 0.0


Withheld = Mapping[str, Refusal]


def digest_of(table: Table) -> str:
    """Return the digest of a table's content."""
    return _digest(json.dumps(table, sort_keys=True, default=str))


def find_basis(settings: Settings, template: str) -> str:
    """Return the digest of what else decides whether HAProxy takes a table."""
    return _digest(f"{settings!r}\n{template}")


def read_withheld(record: Record) -> dict[str, Refusal]:
    """Return the tables that were withheld, by name; a damaged entry is left out."""
    withheld = {}
    for entry in record.withheld:
        try:
            name, digest, words, at_s, tries, basis = entry
            refusal = Refusal(str(digest), str(words), parse_finite(at_s), max(1, int(tries)), str(basis))
        except DAMAGE:
            continue
        withheld[str(name)] = refusal
    return withheld


def select_withheld(settings: Settings, template: str, record: Record, now_s: float) -> dict[str, Refusal]:
    """Return the tables that are withheld now: not those that are to be tried again."""
    basis = find_basis(settings, template)
    return {
        name: refusal
        for name, refusal in read_withheld(record).items()
        if refusal.basis in ("", basis) and refusal.left_s(now_s, settings.retry_max_s) > 0
    }


def list_withheld(withheld: Withheld) -> list[Any]:
    """Return withheld tables as the record keeps them."""
    return [[name, *refusal] for name, refusal in sorted(withheld.items())]


def expect_retry(settings: Settings, outcome: Outcome, record: Record) -> Outcome:
    """Return the outcome with another pass when a withheld table is to be tried again."""
    now_s = time.time()
    left_s = [refusal.left_s(now_s, settings.retry_max_s) for refusal in read_withheld(record).values()]
    if not left_s:
        return outcome
    again_s = max(_SHORTEST_S, min(left_s))
    return dataclasses.replace(outcome, again_s=again_s if outcome.again_s is None else min(again_s, outcome.again_s))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
