"""From the servers that HAProxy runs to its view of the services. A template may have a node in several sections."""

from collections.abc import Collection, Mapping, Sequence

from serf_haproxy.config.ids import choose_id, is_id_of
from serf_haproxy.policy.snapshot import DOWN, STOPPING, Known, Running, Seen, View
from serf_haproxy.services import Key, find_service
from serf_haproxy.services.file import Services


def read_view(running: Running | None, known: Mapping[Key, Known], services: Services) -> View:
    """Return HAProxy's view by services.

    Where a name stands for several servers, the one at the address and port that were decided counts, else one with an
    id of ours. One that the administrator has under the same name elsewhere says nothing of the node.

    Args:
        running: What HAProxy runs; None when it does not answer.
        known: What is remembered of servers.
        services: The services that the operator names.
    """
    if running is None or running.servers is None:
        return View()
    is_sticky = any(service.is_sticky for service in services.listed)
    copies, counts = _gather(running.servers, services.names)
    serving, down, idle, unchecked = set(), set(), set(), set()
    up: dict[Key, str] = {}
    places: dict[Key, Key] = {}
    for key, found in copies.items():  # most names stand for one server, and a pass looks at all of them
        place = _choose(key, found, running.servers, known.get(key)) if isinstance(found, list) else found
        seen, places[key] = running.servers[place], place
        if is_sticky and seen.is_serving:
            serving.add(key)
        if seen.operation == DOWN:
            down.add(key)
        elif not seen.is_maintained:
            up[key] = seen.endpoint
            if seen.is_drained or not seen.weight or seen.operation == STOPPING:
                idle.add(key)
        if not seen.is_checked:
            unchecked.add(key)
    up |= _translate(up, known)
    return View(
        counts,
        frozenset(serving),
        frozenset(down),
        up,
        frozenset(unchecked),
        frozenset(copies),
        idle=frozenset(idle),
        places=places,
    )


def _gather(servers: Mapping[Key, Seen], names: Collection[str]) -> tuple[dict[Key, Key | list[Key]], dict[Key, int]]:
    """Return where the servers of each service and name are, several as a list, and their connections, if any."""
    copies: dict[Key, Key | list[Key]] = {}
    counts: dict[Key, int] = {}
    for place, seen in servers.items():
        key = _find_key(place, seen, names)
        if key is None:
            continue
        earlier = copies.get(key)
        copies[key] = place if earlier is None else [*(earlier if isinstance(earlier, list) else [earlier]), place]
        if seen.connection_count:
            counts[key] = counts.get(key, 0) + seen.connection_count
    return copies, counts


def _choose(key: Key, copies: Sequence[Key], servers: Mapping[Key, Seen], known: Known | None) -> Key:
    """Return the server of a name that tells most of its node: where it was decided to be, ours, and in use."""

    def rate(place: Key) -> tuple[bool, ...]:
        seen = servers[place]
        return (
            known is not None and seen.endpoint == known.server.endpoint,
            is_id_of(key, seen.id),
            seen.operation != DOWN and not seen.is_maintained,
            seen.weight > 0 and not seen.is_drained,
        )

    return max(copies, key=rate)


def _translate(up: Mapping[Key, str], known: Mapping[Key, Known]) -> dict[Key, str]:
    """Return where servers should be if a template gives all of them other addresses or ports than were decided."""
    ours = known.keys() & up.keys()
    if any(up[key] == known[key].server.endpoint for key in ours):  # most often the first one
        return {}
    return {key: known[key].server.endpoint for key in ours}


def _find_key(section_key: Key, seen: Seen, names: Collection[str]) -> Key | None:
    """Return the service and name of a server that runs; None for one of a service that is not named any more.

    A section of another name than a service has servers of the default service, but for those whose id says otherwise.
    """
    section, name = section_key
    if section in names:
        return section_key
    is_former = choose_id(section_key) == seen.id
    return None if is_former else (find_service(section, names), name)
