"""One reading: a report, and what is made of it once for all who ask."""

import time
from typing import Any, NamedTuple

from serf_haproxy.control.report import Report
from serf_haproxy.policy.decision import State
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import Key
from serf_haproxy.show.document import to_json
from serf_haproxy.show.explain import NOW, explain_node, list_parts
from serf_haproxy.show.levels import Level, is_up

GOOD, NOTABLE, BAD = 0, 1, 2  # how a row is shown


class Reading(NamedTuple):
    """What was read at one moment.

    Attributes:
        report: The report.
        document: The same as `serf-haproxy status --json` prints.
        at_s: When, seconds since the epoch.
    """

    report: Report
    document: dict[str, Any]
    at_s: float

    def explain(self, service: str, name: str) -> dict[str, Any] | None:
        """Return why a node is as it is in a service, None where it is not there."""
        found = explain_node(self.report, name, service)
        status = (self.report.servers or {}).get((service, name))
        if not found:
            return None
        # Serf is not asked here.
        lines = [(label, printable(text)) for label, text in list_parts(found[0], time.time()) if label != NOW]
        return {**found[0], "haproxy": status._asdict() if status else None, "lines": lines}

    def list_rows(self) -> dict[str, list[Any]]:
        """Return a row for each node and service, by "service/name".

        Returns:
            service, name, level, state, HAProxy's state, address and port, weight in use, requests at work, requests
            in all, milliseconds, since when (seconds since the epoch), reason.
        """
        return {f"{one['service'] or ''}/{one['name']}": self._make_row(one) for one in self.document["members"]}

    def _make_row(self, one: dict[str, Any]) -> list[Any]:
        key: Key = (one["service"] or "", one["name"])
        status = (self.report.servers or {}).get(key)
        shown = status.status if status else None
        address = f"{one['address'] or ''}:{one['port'] or ''}".strip(":")
        reason = "" if one["state"] == State.SERVING.value else one["reason"]
        why = "; ".join(part for part in (one.get("trouble"), reason) if part)
        numbers = (
            (status.weight, status.session_count, status.total_count, status.response_ms) if status else (None,) * 4
        )
        return [*key, _rank(one), one["state"], shown, address, *numbers, one["since_s"], why]


def make_reading(report: Report) -> Reading:
    """Return a report with what is made of it."""
    return Reading(report, to_json(report), time.time())


def count_up(reading: Reading, service: str) -> int | None:
    """Return how many servers of a service HAProxy sees up, of those that it should have; None without its answer."""
    servers = reading.report.servers
    if servers is None:
        return None
    wanted = (one.key for one in reading.report.decision.servers if one.service == service)
    return sum(is_up(servers.get(key)) for key in wanted)


def _rank(member: dict[str, Any]) -> int:
    if member["level"] != Level.OK.word:
        return BAD
    return GOOD if member["state"] == State.SERVING.value else NOTABLE
