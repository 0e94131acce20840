"""Servers that HAProxy's health checks have never seen up: why, and what to do."""

import dataclasses

from serf_haproxy.control.edges import Edges
from serf_haproxy.control.outcome import Outcome
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.policy.decision import Decision, State
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.services import Key, format_key
from serf_haproxy.services.service import Service

_PATIENCE_S = 15  # an application may still be starting
_SHOWN_COUNT = 10


class Silence:
    """Knows which servers have never come up, and keeps the words for each, so that they are logged once."""

    def __init__(self) -> None:
        self._told: dict[Key, str] = {}

    def explain(self, outcome: Outcome, snapshot: Snapshot, decision: Decision, edges: Edges) -> Outcome:
        """Return an outcome with a problem for each server that should serve and has never come up.

        No pass is made for this alone: the next one that is due says it.

        Args:
            outcome: What the pass came to.
            snapshot: What was read.
            decision: What was decided.
            edges: HAProxy is asked what its health checks found, only when there is news of such a server.
        """
        told, since_s = self._told, _find_down(snapshot, decision)
        for key in told.keys() - since_s.keys():
            del told[key]
        if any(each_s >= _PATIENCE_S and key not in told for key, each_s in since_s.items()):
            rows = edges.runtime.read_status() or {}
            services = {service.name: service for service in snapshot.services.listed}
            for key in sorted(since_s.keys() - told.keys()):
                status = rows.get(snapshot.view.places[key])
                if since_s[key] >= _PATIENCE_S and status and not status.has_been_up:
                    told[key] = _describe(key, status, services[key[0]])
        problems = tuple(told[key] for key in sorted(told)[:_SHOWN_COUNT])
        if len(told) > _SHOWN_COUNT:
            problems += (f"{len(told)} nodes have not come up; `serf-haproxy status` shows the health check of each",)
        return dataclasses.replace(outcome, problems=outcome.problems + problems)


def _find_down(snapshot: Snapshot, decision: Decision) -> dict[Key, int]:
    """Return for how long each server that should serve has been down, seconds."""
    servers = (snapshot.running and snapshot.running.servers) or {}
    found = {}
    for key in snapshot.view.down or ():
        seen, entry = servers[snapshot.view.places[key]], decision.entries.get(key)
        if not seen.is_maintained and entry and entry.state is State.SERVING:
            found[key] = seen.unchanged_s
    return found


def _describe(key: Key, status: ServerStatus, service: Service) -> str:
    advice, found = _advise(status, service), status.explain_check()
    return f"node {format_key(key)} has not come up: its health check, {service.check}, found {found}{advice}"


def _advise(status: ServerStatus, service: Service) -> str:
    if status.code in ("405", "501"):
        return f"; set {service.where('health_method')} to a method that it knows, such as GET"
    if status.code in ("400", "421"):
        return f"; {service.where('health_host')} may be a host that it does not serve"
    if status.code in ("401", "403", "404", "410"):
        return f"; set {service.where('health_path')} to a path that needs no login"
    if status.code == "508":
        return "; its address leads back to a balancer"
    return f"; is its application running at {status.address}?" if status.check.startswith("L4") else ""
