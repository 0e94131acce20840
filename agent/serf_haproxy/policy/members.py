"""The members of a service by their status, and which of its servers were lost. Pure."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serf_haproxy.policy.claim import tag_of
from serf_haproxy.policy.decision import Entry
from serf_haproxy.policy.judgement import Judgement
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone, Known, Snapshot
from serf_haproxy.serf.events import ALIVE, FAILED
from serf_haproxy.services import DEFAULT_SERVICE, Key


class Members(NamedTuple):
    """The members of a service by their status, by name.

    Attributes:
        alive: Servers of members that are alive.
        leaving: Servers of members that leave or left, and when they did.
        failed: Servers of members that failed, and when they did.
        unfit: Why members that are alive or failed cannot be servers. A balancer is here if it was a server before.
    """

    alive: dict[str, Server]
    leaving: dict[str, Gone]
    failed: dict[str, Gone]
    unfit: dict[str, Entry]


def sort_out(service: str, judged: Mapping[str, Judgement], snapshot: Snapshot) -> Members:
    """Return the members of a service by their status."""
    members = Members({}, {}, {}, {})
    for name, judgement in judged.items():
        file = judgement.file
        if judgement.is_balancer and not _was_server((service, name), snapshot):
            continue
        if judgement.server is None:
            if file.status in (ALIVE, FAILED):
                members.unfit[name] = judgement.entry
        elif file.status == ALIVE:
            members.alive[name] = judgement.server
        else:
            group = members.failed if file.status == FAILED else members.leaving
            group[name] = Gone(judgement.server, file.mtime_ns)
    return members


def remember_unfit(service: str, names: Iterable[str], snapshot: Snapshot) -> dict[Key, Gone]:
    """Return what unfit and forgotten members were, and since when: a node file says that only of a failure."""
    files = snapshot.files
    unfit = {
        key: snapshot.unfit.get(key, Gone(snapshot.known[key].server, snapshot.at_ns))
        for key in snapshot.known
        if key[1] not in files and snapshot.known[key].is_served
    }
    for name in names:
        key = (service, name)
        if key in snapshot.unfit:
            unfit[key] = snapshot.unfit[key]
        elif key in snapshot.known and snapshot.known[key].is_served:
            file = snapshot.files[name]
            at_ns = snapshot.at_ns if file.status == ALIVE else file.mtime_ns
            unfit[key] = Gone(snapshot.known[key].server, at_ns)
    return unfit


def remember_servers(snapshot: Snapshot, servers: Iterable[Server]) -> Mapping[Key, Known]:
    """Return what is to be remembered of servers, given those that were decided."""
    before, known, is_same = snapshot.known, {}, True
    for server in servers:
        key = server.key
        earlier = before.get(key)
        was_up = snapshot.has_been_up(server)
        if earlier is not None and earlier == (server, was_up, True):
            known[key] = earlier  # most of them: a pass decides about every server
            continue
        known[key], is_same = Known(server, was_up, is_served=True), False
    for key, earlier in before.items() if len(before) != len(known) or not is_same else ():
        if key not in known and key[1] in snapshot.files:
            known[key] = Known(earlier.server, snapshot.has_been_up(earlier.server), is_served=False)
    return known


def find_lost(snapshot: Snapshot, members: Members, unfit: Mapping[Key, Gone]) -> dict[str, Gone]:
    """Return the servers that were lost without having left, and when.

    A server is not lost but replaced when another member has its address and port. The server of an unfit member still
    runs in HAProxy as it was. A server that has never been up is no loss.
    """
    rules = snapshot.rules
    lost = members.failed | {
        name: gone
        for (_, name), gone in unfit.items()
        if name in members.unfit and rules.allows(gone.server, snapshot.files[name].member)
    }
    if not lost:
        return {}
    takers = find_claims(snapshot)
    for name, server in members.alive.items():
        takers.setdefault(server.endpoint, set()).add(name)
    return {name: gone for name, gone in lost.items() if takers.get(gone.server.endpoint, {name}) <= {name}}


def find_claims(snapshot: Snapshot) -> dict[str, set[str]]:
    """Return the addresses and ports that living members say they have without being servers, and their names.

    Such a claim counts against other members, so it needs a proof where servers need one. A server that is where its
    member says takes the place from no other one, whatever excludes that member now.
    """
    files, rules = snapshot.files, snapshot.rules
    claims: dict[str, set[str]] = {}
    said = {"port"} if rules.service == DEFAULT_SERVICE else set()
    said |= {tag_of(rules.service)} if rules.are_named else set()
    for name, file in files.items():
        if file.status == ALIVE and not rules.admit(file.member) and said & file.member.tag_values().keys():
            with contextlib.suppress(ValueError):
                endpoint, known = rules.read_claim(file.member).endpoint, snapshot.known.get((rules.service, name))
                if not (known and known.is_served and known.server.endpoint == endpoint):
                    claims.setdefault(endpoint, set()).add(name)
    return claims


def _was_server(key: Key, snapshot: Snapshot) -> bool:
    """Return whether a balancer was a server before: a wrong setting may make it a balancer."""
    return key[1] != snapshot.rules.self_name and (
        key in snapshot.unfit or (key in snapshot.known and snapshot.known[key].is_served)
    )
