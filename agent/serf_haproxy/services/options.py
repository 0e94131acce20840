"""Which options of a service do not fit each other."""

from collections.abc import Iterator

from serf_haproxy.services.service import HTTP, TCP, Service
from serf_haproxy.services.words import HASH


def find_misfits(service: Service) -> Iterator[str]:
    """Yield a line for each option that does not fit another one, with its key first."""
    if service.split and service.balance != "roundrobin":
        yield f"split: needs balance roundrobin; {service.balance} does not follow weights exactly"
    if service.balance == HASH and not service.hash_key:
        yield "balance: hash needs hash_key, what of a request decides about its server"
    if service.hash_key and service.balance != HASH:
        yield f"hash_key: needs balance hash; it is {service.balance}"
    if service.mode != HTTP:
        if service.hash_key not in ("", "source"):
            yield f"hash_key: {service.hash_key} needs mode http; source does not"
        if service.server_proto != "h1":
            yield "server_proto: needs mode http"
    if service.health not in (HTTP, TCP) and service.mode == HTTP:
        yield f"health: {service.health} needs mode tcp"
    yield from _find_misfit_servers(service)


def _find_misfit_servers(service: Service) -> Iterator[str]:
    if service.server_maxqueue and not service.server_maxconn:
        yield "server_maxqueue: needs server_maxconn, without which there is no queue"
    if service.tls and not service.tls_ca_file:
        yield "tls: needs tls_ca_file, the certificates of those that sign the servers' certificates"
    if not service.tls:
        yield from (f"{key}: needs tls = true" for key in ("tls_ca_file", "tls_name") if getattr(service, key))
