"""Servers that HAProxy's health checks have never seen up: why, and what to do."""

import dataclasses

from serf_haproxy.control.edges import Edges
from serf_haproxy.control.outcome import Outcome
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.policy.decision import Decision, State
from serf_haproxy.policy.snapshot import DOWN, Snapshot
from serf_haproxy.services import Key, find_service
from serf_haproxy.settings import variable

_PATIENCE_S = 15  # an application may still be starting
_SHOWN_COUNT = 10


class Silence:
    """Knows which servers have never come up, and keeps the words for each, so that they are logged once."""

    def __init__(self) -> None:
        self._told: dict[Key, str] = {}

    def explain(self, outcome: Outcome, snapshot: Snapshot, decision: Decision, edges: Edges, check: str) -> Outcome:
        """Return an outcome with a problem for each server that should serve and has never come up.

        Args:
            outcome: What the pass came to.
            snapshot: What was read.
            decision: What was decided.
            edges: HAProxy is asked what its health checks found, only when there is news of such a server.
            check: The health check in words, such as `HEAD /`.
        """
        told, since_s = self._told, _find_down(snapshot, decision)
        for key in told.keys() - since_s.keys():
            del told[key]
        if any(each_s >= _PATIENCE_S and key not in told for key, each_s in since_s.items()):
            rows = edges.runtime.read_status() or {}
            status = {(find_service(section), name): row for (section, name), row in rows.items()}
            for key in sorted(since_s.keys() & status.keys() - told.keys()):
                if since_s[key] >= _PATIENCE_S and not status[key].has_been_up:
                    told[key] = _describe(key[1], status[key], check)
        problems = tuple(told[key] for key in sorted(told)[:_SHOWN_COUNT])
        if len(told) > _SHOWN_COUNT:
            problems += (f"{len(told)} nodes have not come up; `serf-haproxy status` shows the health check of each",)
        times_s = [float(_PATIENCE_S - each_s) for each_s in since_s.values() if each_s < _PATIENCE_S]
        times_s += [] if outcome.again_s is None else [outcome.again_s]
        return dataclasses.replace(outcome, problems=outcome.problems + problems, again_s=min(times_s, default=None))


def _find_down(snapshot: Snapshot, decision: Decision) -> dict[Key, int]:
    """Return for how long each server that should serve has been down, seconds."""
    servers = (snapshot.running and snapshot.running.servers) or {}
    found = {}
    for (section, name), seen in servers.items():
        key = find_service(section), name
        entry = decision.entries.get(key)
        if seen.operation == DOWN and not seen.is_maintained and entry and entry.state is State.SERVING:
            found[key] = seen.unchanged_s
    return found


def _describe(name: str, status: ServerStatus, check: str) -> str:
    return f"node {name} has not come up: its health check, {check}, found {status.explain_check()}{_advise(status)}"


def _advise(status: ServerStatus) -> str:
    if status.code in ("405", "501"):
        return f"; set {variable('health_method')} to a method that it knows, such as GET"
    if status.code in ("400", "421"):
        return f"; {variable('health_host')} may be a host that it does not serve"
    if status.code in ("401", "403", "404", "410"):
        return f"; set {variable('health_path')} to a path that needs no login"
    if status.code == "508":
        return "; its address leads back to a balancer"
    return f"; is its application running at {status.address}?" if status.check.startswith("L4") else ""
