"""Services that members announce, at NAME.DOMAIN, where a setting names the domain."""

import contextlib
import time
from collections.abc import Mapping

from serf_haproxy.control.record import Record
from serf_haproxy.control.rules import read_rules
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.announced import Limits, find_announced
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import RESERVED
from serf_haproxy.services.file import Announced, Services
from serf_haproxy.services.route import read_route
from serf_haproxy.services.service import make_default, make_service
from serf_haproxy.settings import Settings, variable


def add_announced(services: Services, settings: Settings, record: Record, files: Mapping[str, NodeFile]) -> Services:
    """Return the services with those that members announce; the same where no setting names a domain.

    Args:
        services: Those that the operator has named.
        settings: The settings, which say all about the others.
        record: What the pass before left behind.
        files: Node files by name.
    """
    domain = settings.announced_domain
    if not domain:
        return services
    services = services._replace(are_named=True)
    before = Announced(record.read_announced(), record.announced_at_s)
    limits = Limits(settings.announced_max, lambda name: _refuse(name, domain, services))
    announced = before
    with contextlib.suppress(SystemFault):  # without the secret of the proofs nothing is changed
        rules, *_ = read_rules(settings, record.self_name, services=Services((make_default(settings),), are_named=True))
        announced = find_announced(files.values(), rules, before, limits, time.time())
    made = [make_service(name, settings, routes=(f"{name}.{domain}",)) for name in announced.seen_s]
    listed = sorted((*services.listed, *made), key=lambda service: service.name)
    return services._replace(listed=tuple(listed), announced=announced)


def _refuse(name: str, domain: str, services: Services) -> str:
    """Return why there may be no announced service of a name, "" where there may."""
    if name in services.claimed or name in services.names:
        return "the services file has a table of this name"
    if name in RESERVED:
        return "another section of the built-in template has this name"
    host = f"{name}.{domain}"
    for service in services.listed:
        for text in service.routes:
            route = read_route(text)
            if route.host == host or (route.is_wildcard and host.endswith(f".{route.host}")):
                return f"the route {text} of service {service.name} has its host; change {variable('announced_domain')}"
    return ""
