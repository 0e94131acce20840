"""When the last decision still holds: nothing that it follows from is new, and time alone does not change it. Pure."""

from serf_haproxy.policy.decision import Decision, State
from serf_haproxy.policy.judgement import Memo
from serf_haproxy.policy.snapshot import Snapshot

_RECALL_S = 600.0  # then it is made anew: checks become more frequent some time after servers have gone
_LASTING = frozenset([State.IGNORED, State.QUARANTINED])  # they follow from the member and the rules alone


def list_inputs(snapshot: Snapshot) -> tuple[object, ...]:
    """Return all that a decision follows from besides the time, without what only leaving and draining nodes need."""
    return (
        snapshot.view._replace(connection_counts={}, places={}),
        snapshot.rules,
        snapshot.further_rules,
        snapshot.services,
        snapshot.orders,
        snapshot.files,
        snapshot.flaps,
        snapshot.unfit,
        snapshot.refused,
        snapshot.checks,
        snapshot.known,
    )


def recall(inputs: tuple[object, ...], at_ns: int, memo: Memo) -> Decision | None:
    """Return the last decision where the same is known, and time alone does not change it; else None."""
    if memo.last is None:
        return None
    before, made_ns, decision = memo.last
    is_recent = 0 <= at_ns - made_ns < _RECALL_S * 1e9
    return decision if is_recent and _is_lasting(decision) and inputs == before else None


def _is_lasting(decision: Decision) -> bool:
    """Return whether time alone does not change a decision."""
    if decision.changes_in_s is not None or decision.flaps or decision.unfit:
        return False
    is_any_down = any(pace.down_ns for pace in decision.checks.paces.values())
    return not is_any_down and all(
        entry.state in _LASTING and entry.until_ns is None for entry in decision.notable.values()
    )
