"""A snapshot, taken apart by services, and their decisions put together again. Pure.

A service is decided from its own part alone: the members that offer it, or had a server in it, and what is remembered
of those. So nothing that happens in one service can hold, damp or drain a server of another one.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.claim import list_offers
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.judgement import Memo
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE, Key

_Value = TypeVar("_Value")
_ORDINARY = (DEFAULT_SERVICE,)
_EACH_COUNT, _ALL_COUNT = 4, 100  # unnamed services that are shown
_IMPROPER = "no tag svc.NAME of it has a proper name: a letter a-z, then up to 30 of a-z, 0-9 and dash"
_UNNAMED = "the operator has named no such service"


def take_apart(snapshot: Snapshot, memo: Memo) -> list[Snapshot]:
    """Return the part of each service, sorted by its name.

    Args:
        snapshot: What was read.
        memo: The owner's memo, in which `note_offers` has noted what members offer.
    """
    all_rules: dict[str, Rules] = {rules.service: rules for rules in (snapshot.rules, *snapshot.further_rules)}
    files: dict[str, dict[str, NodeFile]] = {service: {} for service in all_rules}
    if snapshot.rules.are_named:
        for name, (file, offers) in memo.offers.items():
            for service in offers:
                if service in files:
                    files[service][name] = file
    else:
        files[DEFAULT_SERVICE] = dict(snapshot.files)
    known, unfit = _group(snapshot.known), _group(snapshot.unfit)
    refused, flaps = _group(snapshot.refused), _group(snapshot.flaps)
    for service, name in _list_former(snapshot, all_rules):
        if name in snapshot.files:
            files[service][name] = snapshot.files[name]
    return [
        snapshot._replace(
            rules=all_rules[service],
            further_rules=(),
            files=files[service],
            known=known.get(service, {}),
            unfit=unfit.get(service, {}),
            refused=refused.get(service, {}),
            flaps=flaps.get(service, {}),
        )
        for service in sorted(all_rules)
    ]


def _list_former(snapshot: Snapshot, rules: Mapping[str, Rules]) -> Iterator[Key]:
    """Yield the servers whose members may not offer their service any more, while that may be held as a loss."""
    yield from (key for key, known in snapshot.known.items() if known.is_served and key[0] in rules)
    for key, gone in snapshot.unfit.items():
        if key[0] in rules and snapshot.at_ns - gone.at_ns < rules[key[0]].guard.hold_s * 1e9:
            yield key


def note_offers(files: Mapping[str, NodeFile], memo: Memo) -> None:
    """Note in the memo which services each member offers; a file that has not changed is not read again."""
    before = memo.offers
    memo.offers = {
        name: earlier if (earlier := before.get(name)) and earlier[0] is file else (file, list_offers(file.member))
        for name, file in files.items()
    }


def list_unnamed(snapshot: Snapshot, memo: Memo) -> dict[Key, Entry]:
    """Return the entries of services that members offer and that the operator has not named, or that have no name.

    They are only shown, and no more than a few of each member and some in all: members may invent any number.
    """
    named = {snapshot.rules.service, *(rules.service for rules in snapshot.further_rules)}
    keys = [
        (service, name)
        for name, (file, offers) in memo.offers.items()
        if offers != _ORDINARY and file.status == ALIVE
        for service in [offer for offer in offers if offer not in named][:_EACH_COUNT]
    ]
    if snapshot.rules.are_named:
        keys += [(DEFAULT_SERVICE, name) for name, (_, offers) in memo.offers.items() if not offers]
    reasons = dict.fromkeys(named, _IMPROPER) | dict(snapshot.services.announced.refused)
    return {
        (service, name): Entry(
            State.IGNORED,
            reasons.get(service, _UNNAMED),
            None,
            snapshot.files[name].mtime_ns,
            cause=Cause.IMPROPER if service in named else Cause.UNNAMED,
        )
        for service, name in sorted(keys)[:_ALL_COUNT]
    }


def put_together(decisions: Iterable[Decision], unnamed: Mapping[Key, Entry]) -> Decision:
    """Return the decision about all services, sorted by service and name."""
    listed = list(decisions)
    if len(listed) == 1 and not unnamed:
        return listed[0]
    entries = _join(one.entries for one in listed)
    if unnamed:
        entries = dict(sorted({**unnamed, **entries}.items()))
    return Decision(
        entries,
        {key: entry for key, entry in entries.items() if entry.state is not State.SERVING},
        tuple(server for one in listed for server in one.servers),
        _join(one.flaps for one in listed),
        _join(one.unfit for one in listed),
        _join(one.known for one in listed),
        min((one.changes_in_s for one in listed if one.changes_in_s is not None), default=None),
    )


def _group(table: Mapping[Key, _Value]) -> dict[str, dict[Key, _Value]]:
    groups: dict[str, dict[Key, _Value]] = {}
    for key, value in table.items():
        groups.setdefault(key[0], {})[key] = value
    return groups


def _join(tables: Iterable[Mapping[Key, _Value]]) -> dict[Key, _Value]:
    joined: dict[Key, _Value] = {}
    for table in tables:
        joined.update(table)
    return joined
