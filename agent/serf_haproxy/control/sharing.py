"""Which services share tables of sticky clients, and with which balancers."""

import dataclasses

from serf_haproxy.control.record import Record
from serf_haproxy.policy.peers import find_peers
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.settings import Settings


def add_peers(snapshot: Snapshot, settings: Settings, record: Record) -> Snapshot:
    """Return the snapshot with the balancers that share the tables of those services that have one.

    Args:
        snapshot: What was read.
        settings: The settings.
        record: What the pass before left behind.
    """
    services = snapshot.services
    if not any(service.stick for service in services.listed):
        return snapshot
    peers = find_peers(snapshot.rules, snapshot.files, record.peers, settings.peers_port, snapshot.at_ns)
    listed = tuple(
        dataclasses.replace(service, peers=peers.listed) if service.stick else service for service in services.listed
    )
    return snapshot._replace(services=services._replace(listed=listed), peers=peers)
