"""Servers that HAProxy refused: remembered for some minutes, so that not every pass searches for them again."""

import hashlib
import time

from serf_haproxy.control.outcome import Outcome
from serf_haproxy.control.record import Faults, Record
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.services.file import Services
from serf_haproxy.settings import Settings


def select_faults(settings: Settings, template: str, services: Services, faults: Faults) -> Faults:
    """Return the remembered refusals while they hold: for the same input but the servers, and not for ever."""
    is_young = 0 <= time.time() - faults.at_s < settings.retry_max_s
    return (
        faults
        if faults.servers and is_young and faults.basis == _find_basis(settings, template, services)
        else Faults()
    )


def _find_basis(settings: Settings, template: str, services: Services) -> str:
    """Return the digest of the settings, the services and the template."""
    return hashlib.sha256(
        f"{settings!r}\n{services.listed!r}\n{template}".encode("utf-8", "surrogateescape")
    ).hexdigest()[:16]


def list_faults(settings: Settings, snapshot: Snapshot, outcome: Outcome, before: Record) -> list[object]:
    """Return the servers that HAProxy refuses, as the record keeps them."""
    refused = {**snapshot.refused, **outcome.refused}
    if not refused:
        return []
    earlier = before.read_faults() if snapshot.refused else Faults()
    at_s = earlier.at_s or time.time()
    return [
        _find_basis(settings, snapshot.template or "", snapshot.services),
        at_s,
        [[list(server), words] for server, words in refused.values()],
    ]
