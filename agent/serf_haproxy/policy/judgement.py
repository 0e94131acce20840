"""The judgement of each member on its own: a server, or the reason why it cannot be one. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.cause import Cause, Refusal
from serf_haproxy.policy.claim import tag_of
from serf_haproxy.policy.decision import Decision, Entry, State
from serf_haproxy.policy.pace import Paced
from serf_haproxy.policy.server import Server
from serf_haproxy.serf.events import FAILED, LEAVING, LEFT, Member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import Key


class Judgement(NamedTuple):
    """The judgement of a member on its own.

    Attributes:
        file: Its node file.
        server: Its server; None when it cannot be one.
        entry: Its entry while it is alive and nothing else is decided.
        is_balancer: Whether it is a balancer.
    """

    file: NodeFile
    server: Server | None
    entry: Entry
    is_balancer: bool = False


class Memo:
    """What each member, and all of them, came to in the last decision. It only saves time: a new one gives the same."""

    __slots__ = ("judged", "last", "offers", "paced")

    def __init__(self) -> None:
        self.last: tuple[tuple[object, ...], int, Decision] | None = None  # what it followed from, when it was made
        self.judged: dict[str, tuple[Rules, dict[str, Judgement]]] = {}  # by service
        self.offers: dict[str, tuple[NodeFile, tuple[str, ...]]] = {}  # what each member offers, by name
        self.paced: dict[Key, Paced] = {}


def judge(files: Mapping[str, NodeFile], rules: Rules, memo: Memo) -> dict[str, Judgement]:
    """Return what each member alone comes to in a service, sorted by name.

    A file that has not changed is not judged again.
    """
    earlier_rules, before = memo.judged.get(rules.service, (None, {}))
    before = before if earlier_rules == rules else {}
    judged = {}
    for name in sorted(files):
        file, earlier = files[name], before.get(name)
        judged[name] = earlier if earlier and earlier.file is file else judge_member(file, rules)
    memo.judged[rules.service] = rules, judged
    return judged


def judge_member(file: NodeFile, rules: Rules) -> Judgement:
    """Return what a member alone comes to under the rules of a service."""
    member, since_ns = file.member, file.mtime_ns
    if rules.is_balancer(member):
        entry = Entry(State.IGNORED, "it is a balancer", None, since_ns, cause=Cause.BALANCER)
        return Judgement(file, None, entry, is_balancer=True)
    try:
        server = rules.read_server(member)
    except Refusal as error:
        state = State.QUARANTINED if rules.admit(member) else State.IGNORED
        return Judgement(file, None, Entry(state, str(error), None, since_ns, cause=error.cause))
    if not rules.has_share(server):
        return Judgement(file, *_take_requests_away(server, rules, since_ns))
    if server.weight == 0:
        reason = _explain_drain(member, rules)
        return Judgement(file, server, Entry(State.DRAINING, reason, server, since_ns, cause=Cause.DRAIN_TAG))
    return Judgement(file, server, Entry(State.SERVING, "it is alive in Serf", server, since_ns, cause=Cause.ALIVE))


def _take_requests_away(server: Server, rules: Rules, since_ns: int) -> tuple[Server, Entry]:
    """Return a server that gets no new clients, because its version has no share, and its entry."""
    server = server._replace(weight=0)
    what = f"its version {server.version} has no share" if server.version else "it says no version"
    named = " ".join(version for version, share in rules.split if share)
    reason = f"{what}, and the service's split has shares for {named}"
    return server, Entry(State.DRAINING, reason, server, since_ns, cause=Cause.NO_SHARE)


def _explain_drain(member: Member, rules: Rules) -> str:
    is_drained, tag = rules.find_claim(member).is_drained, tag_of(rules.service)
    if rules.are_named and tag in member.tag_values():
        return f"its tag {tag} says {'drain' if is_drained else 'weight 0'}"
    return "its tag drain is true" if is_drained else "its tag weight is 0"


def explain_absent(file: NodeFile) -> Entry:
    """Return the entry of a node that is not alive and has no server any more."""
    reason, cause = {
        FAILED: ("it failed in Serf", Cause.FAILED),
        LEFT: ("it left", Cause.LEFT),
        LEAVING: ("it is leaving", Cause.LEAVING),
    }[file.status]
    return Entry(State.GONE, reason, None, file.mtime_ns, cause=cause)


def quarantine_refused(entry: Entry, refused: tuple[Server, str] | None, gives_weights: bool) -> Entry:
    """Return the entry of a node whose server HAProxy may refuse.

    Args:
        entry: What was decided else.
        refused: The server that HAProxy refused, with its words; None for none.
        gives_weights: Whether the service gives its servers other weights than their members ask for.
    """
    if refused is None or entry.server is None:
        return entry
    server = refused[0]._replace(weight=entry.server.weight) if gives_weights else refused[0]
    if server != entry.server:
        return entry
    reason = f"HAProxy refuses it: {refused[1]}"
    return Entry(State.QUARANTINED, reason, None, entry.since_ns, cause=Cause.REFUSED)
