"""Asking other balancers by a query of Serf, and waiting for their answers."""

import select
import time
from collections.abc import Sequence

from serf_haproxy.control.edges import find_serf
from serf_haproxy.serf.query import Query
from serf_haproxy.settings import Settings


def ask_balancers(
    settings: Settings, query: str, subject: str, names: Sequence[str], timeout_s: float = 1.0
) -> dict[str, bytes]:
    """Return what balancers answer, by node name; those that do not answer in time are missing.

    The answers are what came over the network: `policy.answer_wire.decode` says whether one counts.

    Args:
        settings: The settings.
        query: The name of the query.
        subject: What it asks about; "" for the balancer.
        names: The node names of the balancers.
        timeout_s: How long answers are awaited.

    Raises:
        SerfFault: The Serf agent cannot be reached, refuses the query, or breaks its protocol.
    """
    found: dict[str, bytes] = {}
    wanted = set(names)
    asked = Query(find_serf(settings), query, subject.encode("utf-8", "replace"), names, timeout_s)
    try:
        deadline_s, is_done = time.monotonic() + timeout_s, not names
        while not is_done and found.keys() != wanted and time.monotonic() < deadline_s:
            answers, is_done = asked.read_answers()  # first those that have come with what accepts the query
            found |= {node: payload for node, payload in answers if node in wanted and node not in found}
            if not is_done and found.keys() != wanted:
                select.select([asked], [], [], max(0, deadline_s - time.monotonic()))
    finally:
        asked.close()
    return found
