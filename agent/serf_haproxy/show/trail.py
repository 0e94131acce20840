"""What has changed from one report to the next: events in words, and the rate of each server's requests."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.control.report import Report
from serf_haproxy.policy.decision import UNKNOWN, tell_change
from serf_haproxy.services import Key, format_key
from serf_haproxy.show.findings import judge_report, list_findings
from serf_haproxy.show.table import ALL, Choice

_EVENT_COUNT = 200  # from one report to the next


class Step(NamedTuple):
    """What has changed since the report before.

    Attributes:
        events: What has happened, in words; none for the first report.
        rates: Requests or connections a second of each server.
        is_first: Whether there was no report before.
    """

    events: tuple[str, ...]
    rates: Mapping[Key, float]
    is_first: bool = False


def compare(before: Report | None, after: Report, choice: Choice = ALL) -> Step:
    """Return what has changed; `before` is None for the first report.

    Args:
        before: The report before.
        after: The report.
        choice: Of which nodes and which service events are told; those of the whole balancer always are.
    """
    if before is None:
        return Step((), {}, is_first=True)
    events = [
        *_compare_whole(before, after),
        *_compare_nodes(before, after, choice),
        *_compare_checks(before, after, choice),
    ]
    return Step(tuple(events[:_EVENT_COUNT]), _find_rates(before, after))


def _compare_whole(before: Report, after: Report) -> list[str]:
    events = []
    if judge_report(before) != judge_report(after):
        events.append(f"{judge_report(before).name} -> {judge_report(after).name}")
    told = {(finding.subject, finding.level) for finding in list_findings(before)}
    events += [
        f"{finding.subject}: {finding.text}"
        for finding in list_findings(after)
        if finding.level and (finding.subject, finding.level) not in told
    ]
    if before.record.digest != after.record.digest and after.record.verdict:
        events.append(f"{after.record.verdict} {after.record.reason}")
    return events


def _compare_nodes(before: Report, after: Report, choice: Choice) -> list[str]:
    old, new = before.decision.entries, after.decision.entries
    events = []
    for key in _choose(old.keys() | new.keys(), choice):
        was = old.get(key)
        if told := tell_change(was.outline if was else UNKNOWN, new.get(key)):
            events.append("{}: {}; {}".format(format_key(key), *told))
    return events


def _compare_checks(before: Report, after: Report, choice: Choice) -> list[str]:
    old, new = before.servers or {}, after.servers or {}
    known = _choose(old.keys() & new.keys(), choice)
    changed = [key for key in known if _word(old[key].status) != _word(new[key].status)]
    return [f"{format_key(key)}: HAProxy says {new[key].status}: {new[key].explain_check()}" for key in changed]


def _choose(keys: Iterable[Key], choice: Choice) -> list[Key]:
    return [key for key in sorted(keys) if choice.has(*key)]


def _word(status: str) -> str:
    return status.partition(" ")[0]


def _find_rates(before: Report, after: Report) -> dict[Key, float]:
    old, new = before.servers or {}, after.servers or {}
    span_s = after.at_s - before.at_s
    if span_s <= 0:
        return {}
    counts = {key: new[key].total_count - old[key].total_count for key in old.keys() & new.keys()}
    return {key: count / span_s for key, count in counts.items() if count >= 0}  # a new worker counts anew
