"""Why a node is as it is: Serf's word, the decision and its rule, HAProxy's view, events, and what would change it."""

import textwrap
import time
from collections.abc import Iterator, Mapping
from typing import Any

from serf_haproxy.control.history import NODE, History, Wanted
from serf_haproxy.control.report import Report
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.cause import Cause
from serf_haproxy.serf.events import unescape
from serf_haproxy.serf.printing import printable
from serf_haproxy.serf.roster import Roster
from serf_haproxy.services.service import Service
from serf_haproxy.settings import variable
from serf_haproxy.show.document import to_json
from serf_haproxy.show.levels import FAILING
from serf_haproxy.show.rules import RULES
from serf_haproxy.show.scaling import find_slot, format_slot
from serf_haproxy.show.words import format_part, format_span

NOW = "Serf now"  # the label of what Serf says at this moment

_LABEL, _WIDTH = 12, 100  # characters
_EVENT_COUNT = 5
_RESUME = "the pause ends, by `serf-haproxy resume`: until then nothing at HAProxy changes"
_ANSWERS = "its requests succeed: it is still tried with a few, and gets its whole weight back within ten seconds"
_CHECK = "HAProxy's health check of it succeeds; the service's health_path says what it asks for"


def explain_node(report: Report, name: str, service: str = "", roster: Roster | None = None) -> list[dict[str, Any]]:
    """Return an explanation for each service of a node, as JSON has it; none where the node is not known.

    Args:
        report: The report.
        name: The node's name.
        service: The only service; "" for all.
        roster: What Serf says now; None when it does not answer.
    """
    members = [one for one in to_json(report)["members"] if one["name"] == name]
    if service:
        members = [one for one in members if one["service"] in (service, None)]
    return [_explain(report, member, roster) for member in members]


def _explain(report: Report, member: Mapping[str, Any], roster: Roster | None) -> dict[str, Any]:
    file, name = report.snapshot.files.get(member["name"]), member["name"]
    rule = RULES[Cause(member["cause"])]
    status = (report.servers or {}).get((member["service"], name))
    known = roster.members.get(name) if roster else None

    def fill(text: str) -> str:
        words = {"NAME": name, "SERVICE": member["service"] or "", "ADDRESS": member["address"] or "ADDRESS"}
        for word, value in words.items():
            text = text.replace(word, printable(value))
        return text

    changes = [_RESUME] if report.snapshot.orders.pause else []
    changes += [_CHECK] if member["trouble"].startswith("its health check found") else []
    changes += [_ANSWERS] if member["trouble"] == FAILING else []
    return {
        **member,
        "heard": {
            "status": member["status"],
            "at_s": file.mtime_ns / 1e9 if file else None,
            "evidence": member["evidence"],
            "tags": {unescape(key): value for key, value in file.member.tag_values().items()} if file else {},
            "now": known[0] if known else ("unknown to Serf" if roster else None),
        },
        "scaling": find_slot(report.scaled, member["service"] or "", name),
        "rule": rule.text,
        "settings": [_find_setting(report, member["service"], key) for key in rule.keys],
        "haproxy_fault": "" if report.servers is not None else report.haproxy.fault or "it does not answer",
        "total_count": status.total_count if status else 0,
        "unchanged_s": status.unchanged_s if status else None,
        "events": _list_events(report, name, member["service"] or ""),
        "would_change": [*changes, *(fill(text) for text in rule.changes)],
    }


def _list_events(report: Report, name: str, service: str) -> list[dict[str, Any]] | None:
    """Return the last lines of the history about a node; None where this user may not read it."""
    try:
        found = History(report.settings.state_dir).read_recent(Wanted(name, service), _EVENT_COUNT)
    except SystemFault:
        return None
    return [one._asdict() for one in found]


def _find_setting(report: Report, name: str | None, key: str) -> dict[str, str]:
    """Return a setting or a service's key: its name, its value, and where an operator changes it."""
    services: dict[str, Service] = {service.name: service for service in report.snapshot.services.listed}
    service = services.get(name or "")
    if service is not None and hasattr(service, key):
        return {"key": key, "value": format_value(getattr(service, key)), "where": service.where(key)}
    value = format_value(getattr(report.settings, key)) if hasattr(report.settings, key) else "unset"
    return {"key": key, "value": value, "where": variable(key)}


def format_value(value: object) -> str:
    """Return a setting's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(format_value(each) for each in value) or "(none)"
    return f"{value:g}" if isinstance(value, float) else str(value) or "(none)"


def format_explanation(found: Mapping[str, Any], now_s: float) -> str:
    """Return an explanation for people."""
    lines = [f"{found['name']} in service {found['service'] or '-'}: {found['state']} ({found['level']})"]
    for label, text in list_parts(found, now_s):
        lines += textwrap.wrap(
            printable(text),
            _WIDTH,
            initial_indent=label.ljust(_LABEL),
            subsequent_indent=" " * _LABEL,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def list_parts(found: Mapping[str, Any], now_s: float) -> Iterator[tuple[str, str]]:
    """Yield what an explanation says, for people: a label, "" where it goes on, and a text, which may need escapes."""
    heard = found["heard"]
    if heard["at_s"] is not None:
        how = "Serf's roster said so" if heard["evidence"] == "roster" else "an event of Serf's said so"
        yield "Serf", f"{heard['status']}, written down {_format_time(heard['at_s'], now_s)}; {how}"
    else:
        yield "Serf", "there is no node file"
    tags = " ".join(f"{key}={value}" for key, value in sorted(heard["tags"].items()))
    where = f"{found['address'] or '-'}, role {found['role'] or '-'}"
    yield "", f"address {where}{', tags ' + tags if tags else ''}"
    now = heard["now"] or "it does not answer, so what it says now is not known"
    yield NOW, now if now == heard["status"] or not heard["now"] else f"{now}; the next pass that asks follows"
    left = "" if found["left_s"] is None else f", for {format_span(found['left_s'])} more"
    since = "" if found["since_s"] is None else f", since {_format_time(found['since_s'], now_s)}"
    yield "decision", f"{found['state']}: {found['reason']}{since}{left}"
    yield "rule", found["rule"]
    for setting in found["settings"]:
        yield "setting", f"{setting['key']} = {setting['value']} ({setting['where']})"
    if found["wanted_weight"] is not None:
        backup = ", backup" if found["is_backup"] else ""
        version = f", version {found['version']}" if found["version"] else ""
        place = f"{found['address']} port {found['port']}"
        yield "server", f"{place}, weight {found['wanted_weight']}{version}{backup}"
    if slot := found["scaling"]:
        yield "scaling", format_slot(slot)
    if measured := found["measured"]:
        part = format_part(measured)
        share = f"weight {measured['weight']}, {part + ' of' if part else 'of'} {measured['limit']}"
        yield "measured", f"{share}: {measured['reason'] or 'as the node asks'}"
    yield "HAProxy", _format_view(found)
    yield from _list_happenings(found["events"], now_s)
    for index, text in enumerate(found["would_change"]):
        yield "changes if" if not index else "or if", text


def _list_happenings(events: list[dict[str, Any]] | None, now_s: float) -> Iterator[tuple[str, str]]:
    if events is None:
        yield "events", "this user may not read the history"
        return
    for index, one in enumerate(events):
        kind, by = "" if one["kind"] == NODE else f"{one['kind']}: ", f" (by {one['by']})" if one["by"] else ""
        what = f"{_format_time(one['at_s'], now_s)} {kind}{one['what']}; {one['why']}{by}"
        yield "" if index else "events", what
    if not events:
        yield "events", "none that the history still has"


def _format_view(found: Mapping[str, Any]) -> str:
    check = found["check"]
    if check is None:
        return found["haproxy_fault"] or "does not have it"
    result = " ".join(part for part in (check["result"] or "unchecked", check["code"], check["text"]) if part)
    since = "" if found["unchanged_s"] is None else f" for {format_span(found['unchanged_s'])}"
    load = f"{found['session_count']} sessions now, {found['total_count']} since its worker started"
    return f"{check['status']}{since}; its last health check found {result}; weight {found['weight']}; {load}"


def _format_time(at_s: float, now_s: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(at_s))} ({format_span(now_s - at_s)} ago)"
