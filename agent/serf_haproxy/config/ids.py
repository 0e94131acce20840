"""Stable ids for servers: the word `id` of a server's line, and of the command that adds it. Pure.

HAProxy derives a server's places on the ring of `balance random` and of consistent hashes from its id, and the order of
`balance first` too. An id that follows from the name alone is the same on every balancer, in every order of joins,
and after every reload.
"""

import hashlib
from collections.abc import Callable, Iterable

from serf_haproxy.services import Key

# HAProxy gives servers without an id the lowest free numbers.
_LOWEST = 1 << 16
# The ring uses the lowest 20 bits of an id: HAProxy multiplies it by 4096 in 32 bits (lb_chash.c). Servers whose ids
# are equal there share their places, and all but one of them get no request.
_END = 1 << 20

_TRY_COUNT = 8


def choose_id(key: Key, attempt: int = 0, lowest: int = _LOWEST, end: int = _END) -> int:
    """Return the id that a name chooses in its first attempt, or in a later one."""
    text = "/".join((*key, str(attempt)))
    return lowest + int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8]) % (
        end - lowest
    )


def assign_ids(keys: Iterable[Key], choose: Callable[[Key, int], int] = choose_id) -> dict[Key, int]:
    """Return an id for each server, unique in its service, that follows from the set of names alone.

    Of two names whose first choice is the same id, the first in sorted order has it, and the other one its next
    choice. A join can therefore give another server a new id. With 1,000 servers that happens once in about 2,000
    joins. Any rule that keeps the older server's id would let balancers disagree that saw the joins in another order.

    Args:
        keys: The servers; there must be fewer than ids.
        choose: Returns the id that a name chooses in an attempt; `choose_id`, or the caller's memory of it.
    """
    ids: dict[Key, int] = {}
    taken: set[tuple[str, int]] = set()
    for key in sorted(keys):
        service, attempt = key[0], 0
        while (place := (service, choose(key, attempt))) in taken:
            attempt += 1
        taken.add(place)
        ids[key] = place[1]
    return ids


def is_id_of(key: Key, number: int) -> bool:
    """Return whether a server's id is one that `assign_ids` gives to this name: then we have made the server."""
    return any(choose_id(key, attempt) == number for attempt in range(_TRY_COUNT))
