"""The last resort: while no other server can serve, servers that leave, drain or are lost go on getting requests. Pure.

Whatever gossip, leaves, tags and settings say, no decision takes away the last servers that HAProxy sees up. They give
way as soon as others are up. What decides between them is HAProxy's health checks, and what was decided before.
"""

from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.decision import Entry, State
from serf_haproxy.policy.judgement import Judgement
from serf_haproxy.policy.members import find_claims
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Gone, Snapshot
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.services import Key

_WHY = "no other server is up"


class _Candidates(NamedTuple):
    """Servers that are up and not to be, in the order in which they are preferred."""

    alive: dict[Key, Entry]  # drained, unfit
    moved: dict[Key, Entry]  # where they were
    gone: dict[Key, Entry]


def find_last(
    snapshot: Snapshot, entries: Mapping[Key, Entry], judged: Mapping[str, Judgement], unfit: Mapping[Key, Gone]
) -> dict[Key, Entry]:
    """Return the entries of servers that stay because no other server can serve.

    Those of living members come first. Of servers that move, one stays where it was until another is up.

    Args:
        snapshot: What was read.
        entries: What was decided so far.
        judged: What each member alone comes to, by name.
        unfit: Servers whose members cannot be servers any more.
    """
    if any(entry.server is not None and snapshot.stands(entry.server) for entry in entries.values()):
        return {}
    candidates = _Candidates({}, {}, {})
    claims: dict[str, set[str]] | None = None
    for key, known in snapshot.known.items():
        if not snapshot.is_up(known.server) or key in snapshot.refused or key[1] == snapshot.rules.self_name:
            continue
        if key in snapshot.view.idle and known.server.weight != 0:
            continue  # not by our weight: whatever is decided, HAProxy sends it nothing
        if claims is None:
            # Without a proof a claim is gossip, which ends no service.
            claims = find_claims(snapshot) if snapshot.rules.policy.secrets else {}
        is_taken = claims.get(known.server.endpoint, set()) - {key[1]}
        if not is_taken and snapshot.rules.allows(known.server, is_last=True):
            lost_ns = unfit[key].at_ns if key in unfit else None
            _sort_in(candidates, snapshot, known.server, entries.get(key), (judged.get(key[1]), lost_ns))
    if not candidates.alive and candidates.moved:
        first = min(candidates.moved)
        return {first: candidates.moved[first]}
    return candidates.alive or candidates.gone


def _sort_in(
    candidates: _Candidates,
    snapshot: Snapshot,
    was: Server,
    entry: Entry | None,
    member: tuple[Judgement | None, int | None],
) -> None:
    key = was.key
    judgement, lost_ns = member
    what = entry.reason if entry else "Serf has forgotten it"
    since_ns = entry.since_ns if entry and lost_ns is None else lost_ns
    server = _give_weight(was, judgement, snapshot.rules)
    kept = Entry(State.LAST, f"{what}; {_WHY}", server, since_ns, cause=Cause.LAST_UP)
    is_alive = judgement is not None and judgement.file.status == ALIVE
    if is_alive and entry and entry.server and entry.server.weight != 0 and entry.server.endpoint != was.endpoint:
        # Without health checks HAProxy cannot tell that it is gone from where it was.
        if snapshot.view.up is not None and key not in snapshot.view.unchecked:
            candidates.moved[key] = kept._replace(reason=f"it moves to {entry.server.endpoint}; {_WHY}")
        return
    is_fit = judgement is not None and judgement.server is not None
    if (is_alive and is_fit) or (since_ns or 0) > snapshot.rules.guard.find_release_ns(key[1]):
        (candidates.alive if is_alive else candidates.gone)[key] = kept


def _give_weight(server: Server, judgement: Judgement | None, rules: Rules) -> Server:
    """Return a server with the weight that it has when it is not drained."""
    if judgement is not None and judgement.server is not None:
        return server._replace(weight=rules.find_claim(judgement.file.member).weight or None)
    return server._replace(weight=server.weight or None)
