"""From the world to a snapshot: everything that a pass needs, read once. It changes nothing."""

import contextlib
import os
import time
from collections.abc import Collection, Mapping

from serf_haproxy.config.ids import choose_id
from serf_haproxy.control.corrections import Heard
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.faults import select_faults
from serf_haproxy.control.record import Record
from serf_haproxy.control.rendering import read_template
from serf_haproxy.control.rules import read_rules
from serf_haproxy.errors import TemplateError
from serf_haproxy.policy.server import read_running
from serf_haproxy.policy.snapshot import DOWN, Known, Running, Seen, Snapshot, View
from serf_haproxy.serf import nodes
from serf_haproxy.services import Key, find_service
from serf_haproxy.services.file import Services
from serf_haproxy.settings import Settings
from serf_haproxy.system.interfaces import list_local_addresses


def read_nodes(nodes_dir: str) -> Heard:
    """Return the node files as they are, without asking Serf; none when there is no node directory.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    return Heard(*nodes.load(nodes_dir)) if os.path.isdir(nodes_dir) else Heard({}, [])


def observe(settings: Settings, edges: Edges, record: Record, heard: Heard) -> Snapshot:
    """Read all else that the decision depends on.

    Args:
        settings: The settings.
        edges: Where to read.
        record: What the pass before left behind.
        heard: The node files.

    Raises:
        SystemFault: A file cannot be read, or a file of secrets is wrong.
    """
    running = edges.runtime.read_running()
    known = edges.state.read_known()
    services = edges.services_file.read(edges.state.read_services())
    view = _read_view(running, known, services)
    live = edges.config_file.read_live()
    try:
        template, template_fault = read_template(settings), ""
    except TemplateError as error:
        template, template_fault = None, str(error)
    self_name = heard.roster.self_name if heard.roster else record.self_name
    own_address, local = _find_own_address(self_name, heard, record), list_local_addresses()
    rules, *further_rules = (
        one._replace(self_address=own_address, local=local)
        for one in read_rules(settings, self_name, edges.state.read_released_ns(), services)
    )
    return Snapshot(
        at_ns=time.time_ns(),
        rules=rules,
        further_rules=tuple(further_rules),
        services=services,
        files=heard.files,
        strays=heard.strays,
        roster=heard.roster,
        flaps=edges.state.read_flaps(),
        unfit=record.read_unfit(),
        checks=record.read_checks(),
        refused=select_faults(settings, template or "", services, record.read_faults()).servers,
        known=_complete_known(known, view, running, heard, services.names),
        view=view,
        running=running,
        live=live,
        template=template,
        template_fault=template_fault,
    )


def _find_own_address(self_name: str, heard: Heard, record: Record) -> str:
    """Return the address of this balancer's node as it was last known, whether its Serf agent is there or has left."""
    if heard.roster and self_name in heard.roster.members:
        return heard.roster.members[self_name][1].address
    if self_name in heard.files:
        return heard.files[self_name].member.address
    return record.self_address if self_name == record.self_name else ""


def _read_view(running: Running | None, known: Mapping[Key, Known], services: Services) -> View:
    """Return HAProxy's view by services: a custom template may have a server in several sections."""
    if running is None or running.servers is None:
        return View()
    names, is_sticky = services.names, any(service.cookie for service in services.listed)
    counts: dict[Key, int] = {}
    serving, down, known_to_haproxy = set(), set(), set()
    up: dict[Key, str] = {}
    unchecked = set()
    for section_key, seen in running.servers.items():
        key = _find_key(section_key, seen, names)
        if key is None:
            continue
        known_to_haproxy.add(key)
        if not seen.is_checked:
            unchecked.add(key)
        if seen.connection_count:
            counts[key] = counts.get(key, 0) + seen.connection_count
        if is_sticky and seen.is_serving:
            serving.add(key)
        if seen.operation == DOWN:
            down.add(key)
        elif not seen.is_maintained:
            up[key] = seen.endpoint
    up = {key: endpoint for key, endpoint in up.items() if key not in down} if down else up
    everything = frozenset(known_to_haproxy)
    up |= _translate(up, known)
    return View(counts, frozenset(serving), frozenset(down), up, frozenset(unchecked), everything)


def _translate(up: Mapping[Key, str], known: Mapping[Key, Known]) -> dict[Key, str]:
    """Return where servers should be if a template gives all of them other addresses or ports than were decided."""
    ours = {key: known[key].server.endpoint for key in known.keys() & up.keys()}
    return {} if any(up[key] == endpoint for key, endpoint in ours.items()) else ours


def _complete_known(
    known: Mapping[Key, Known], view: View, running: Running | None, heard: Heard, names: Collection[str]
) -> Mapping[Key, Known]:
    """Return what is known of servers, with those that only HAProxy knows: the state directory is new, or was lost."""
    servers = (running and running.servers) or {}
    found = {}
    for section_key, seen in servers.items():
        key = _find_key(section_key, seen, names)
        if key and key not in known and key[1] in heard.files and not seen.is_maintained:
            with contextlib.suppress(ValueError):
                server = read_running(key, seen.endpoint, seen.weight)
                found[key] = Known(server, was_up=key in (view.up or {}), is_served=True)
    return {**known, **found} if found else known


def _find_key(section_key: Key, seen: Seen, names: Collection[str]) -> Key | None:
    """Return the service and name of a server that runs; None for one of a service that is not named any more.

    A section of another name than a service has servers of the default service, but for those whose id says otherwise.
    """
    section, name = section_key
    if section in names:
        return section_key
    is_former = choose_id(section_key) == seen.id
    return None if is_former else (find_service(section, names), name)
