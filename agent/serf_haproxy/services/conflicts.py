"""Where two services contradict each other, or one of them the settings."""

from collections.abc import Iterable, Iterator

from serf_haproxy.services.route import Route, read_route
from serf_haproxy.services.scaling import is_shared
from serf_haproxy.services.service import HTTP, Service
from serf_haproxy.settings import Settings, variable
from serf_haproxy.system.network import overlap


def find_conflicts(service: Service, others: Iterable[Service], settings: Settings) -> list[str]:
    """Return which keys of a service contradict the settings or another service, each with its key first."""
    others = list(others)
    faults = list(_find_taken(service, others, settings))
    for other in others:
        if service.bind and other.bind and overlap(service.bind, other.bind):
            faults += _find_shared(service, other)
        faults += [
            f"routes: {route} leads to service {other.name}" for route in service.routes if route in other.routes
        ]
        if service.scale and other.scale and is_shared(service.scale.slots, other.scale.slots):
            faults.append(f"scale.slots = {service.scale.slots}: the servers of service {other.name} have such names")
        if service.cookie and service.cookie == other.cookie and service.mode == other.mode == HTTP:
            faults += _find_shared_cookie(service, other)
    return faults


def _find_taken(service: Service, others: Iterable[Service], settings: Settings) -> Iterator[str]:
    """Yield a line for each listener of the settings that is where the service would be."""
    peers_port = f":{settings.peers_port}"
    for name, bind in settings.binds.items():
        if service.bind and overlap(service.bind, bind):
            yield f"bind = {service.bind}: {variable(name)} is there"
        if service.stick and overlap(bind, peers_port):
            yield f"stick: {variable(name)} has the port of {variable('peers_port')}"
    if service.bind and any(one.stick for one in (service, *others)) and overlap(service.bind, peers_port):
        yield f"bind = {service.bind}: {variable('peers_port')} is there"


def _find_shared(service: Service, other: Service) -> list[str]:
    """Return why two services cannot share a listener: they must name different hosts there."""
    if not service.sni or not other.sni:
        remedy = f"; to share it, give sni to both, {service.name} and {other.name}" if service.sni or other.sni else ""
        return [f"bind = {service.bind}: service {other.name} is there{remedy}"]
    if service.bind != other.bind:
        return [f"bind = {service.bind}: service {other.name} is there; to share it, write {other.bind}"]
    return [f"sni: {host} leads to service {other.name}" for host in service.sni if host in other.sni]


def _find_shared_cookie(service: Service, other: Service) -> list[str]:
    """Return that a client would have one cookie for two services: each answer would overwrite that of the other."""
    routes, other_routes = ([read_route(route) for route in one.routes] for one in (service, other))
    if service.is_default or other.is_default:  # it gets what is left of a host
        is_shared = any(route.path or not route.host for route in (*routes, *other_routes))
    else:
        is_shared = any(_share_host(one, another) for one in routes for another in other_routes)
    if not is_shared:
        return []
    said = f"service {other.name} has a cookie of this name for the same host"
    return [f"cookie = {service.cookie}: {said}; choose another name"]


def _share_host(one: Route, other: Route) -> bool:
    """Return whether there is a host with requests for both routes."""
    wide, narrow = sorted((one, other), key=lambda route: route.precision)
    if (wide.host, wide.is_wildcard) == (narrow.host, narrow.is_wildcard):
        return True
    # The more precise route takes all requests of its hosts, unless it has a path.
    return bool(narrow.path) and (not wide.host or (wide.is_wildcard and narrow.host.endswith("." + wide.host)))
