"""From the world to a snapshot: everything that a pass needs, read once. It changes nothing."""

import contextlib
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.control.announcing import add_announced
from serf_haproxy.control.cookies import add_cookie_keys
from serf_haproxy.control.corrections import Heard
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.faults import select_faults
from serf_haproxy.control.record import Record
from serf_haproxy.control.rendering import read_template
from serf_haproxy.control.rules import Released, read_rules
from serf_haproxy.control.secrets import ignore_missing, leave_out
from serf_haproxy.control.sharing import add_peers
from serf_haproxy.control.view import read_view
from serf_haproxy.control.withheld import Withheld, select_withheld
from serf_haproxy.errors import TemplateError
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.server import read_running
from serf_haproxy.policy.snapshot import Known, Running, Snapshot, View
from serf_haproxy.serf import nodes
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import Key
from serf_haproxy.services.file import Services
from serf_haproxy.settings import Settings
from serf_haproxy.system.interfaces import list_local_addresses


def read_nodes(nodes_dir: str, before: dict[str, NodeFile] | None = None) -> Heard:
    """Return the node files as they are, without asking Serf; none when there is no node directory.

    Args:
        nodes_dir: The node directory.
        before: What an earlier call returned, which is not read again where it has not changed.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    return Heard(*nodes.load(nodes_dir, before)) if os.path.isdir(nodes_dir) else Heard({}, [])


class Given(NamedTuple):
    """What a pass has before it observes.

    Attributes:
        settings: The settings.
        edges: Where to read.
        record: What the pass before left behind.
        heard: The node files.
        is_only_shown: Whether nothing is changed by it. A missing file of secrets is then a line beside all else.
    """

    settings: Settings
    edges: Edges
    record: Record
    heard: Heard
    is_only_shown: bool = False


def observe(given: Given, withheld: Withheld | None = None) -> Snapshot:
    """Read all else that the decision depends on.

    Args:
        given: What there is.
        withheld: The tables of the services file that are withheld; None: what the record says.

    Raises:
        SystemFault: A file cannot be read, or a file of secrets is wrong.
    """
    settings, edges, record, heard, _ = given
    running = edges.runtime.read_running()
    known = edges.state.read_known()
    template, template_fault = _read_template(settings)
    if withheld is None:
        withheld = select_withheld(settings, template or "", record, time.time())
    services = read_services(given, withheld)
    view = read_view(running, known, services)
    live = edges.config_file.read_live()
    at_ns = time.time_ns()
    orders = edges.orders.read_active(at_ns // 1_000_000)
    released = Released(max(orders.released_ns, edges.state.read_released_ns()), orders.released)
    rules, *further_rules = _read_rules(given, services, released)
    snapshot = Snapshot(
        at_ns=at_ns,
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
        known=_complete_known(known, view, running, heard),
        view=view,
        running=running,
        live=live,
        template=template,
        template_fault=template_fault,
        orders=orders,
    )
    return add_peers(snapshot, settings, record)


def _read_rules(given: Given, services: Services, released: Released) -> list[Rules]:
    """Return the rules of each service, the default one first."""
    settings, _, record, heard, _ = given
    self_name = heard.roster.self_name if heard.roster else record.self_name
    own_address, local = _find_own_address(self_name, heard, record), list_local_addresses()
    return [
        one._replace(self_address=own_address, local=local)
        for one in read_rules(settings, self_name, released, services)
    ]


def _read_template(settings: Settings) -> tuple[str | None, str]:
    """Return the present template's text, or None and why it cannot be read."""
    try:
        return read_template(settings), ""
    except TemplateError as error:
        return None, str(error)


def read_services(given: Given, withheld: Withheld) -> Services:
    """Return the services, with all that control adds to what the operator says of them.

    Args:
        given: What there is.
        withheld: The tables of the services file that are withheld.

    Raises:
        SystemFault: A file of secrets is missing or wrong.
    """
    settings, edges, record, heard, is_only_shown = given
    good = edges.state.read_services()
    services = leave_out(edges.services_file.read(good, record.authorities, withheld), good, settings)
    services = add_announced(services, settings, record, heard.files)
    return add_cookie_keys(ignore_missing(services, settings) if is_only_shown else services, settings)


def _find_own_address(self_name: str, heard: Heard, record: Record) -> str:
    """Return the address of this balancer's node as it was last known, whether its Serf agent is there or has left."""
    if heard.roster and self_name in heard.roster.members:
        return heard.roster.members[self_name][1].address
    if self_name in heard.files:
        return heard.files[self_name].member.address
    return record.self_address if self_name == record.self_name else ""


def _complete_known(
    known: Mapping[Key, Known], view: View, running: Running | None, heard: Heard
) -> Mapping[Key, Known]:
    """Return what is known of servers, with those that only HAProxy knows: the state directory is new, or was lost."""
    servers = (running and running.servers) or {}
    found = {}
    for key in view.places.keys() - known.keys():
        seen = servers[view.places[key]]
        if key[1] in heard.files and not seen.is_maintained:
            with contextlib.suppress(ValueError):
                server = read_running(key, seen.endpoint, seen.weight)
                found[key] = Known(server, was_up=key in (view.up or {}), is_served=True)
    return {**known, **found} if found else known
